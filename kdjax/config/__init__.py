"""Every setting of kdjax: frozen dataclasses. `kdjax.recipes` reads them from YAML and the command
line."""

from kdjax.config.arms import ArmConfig, PhaseConfig, Schedule, StartConfig, TermConfig
from kdjax.config.budget import KINDS, BudgetConfig
from kdjax.config.contamination import ContaminationConfig
from kdjax.config.data import DataConfig, MaskingConfig, TokenizerConfig, predictions
from kdjax.config.evaluation import (
    EvaluationConfig,
    MlmProbeConfig,
    ProbeConfig,
    Protocol,
)
from kdjax.config.families import FamilyName
from kdjax.config.finetune import FewShotConfig, FinetuneConfig, Pooling
from kdjax.config.minimal_pairs import MinimalPairsConfig
from kdjax.config.model import ModelConfig, ModelSpec
from kdjax.config.recipe import Config, PlanConfig, RangeConfig, TuneConfig
from kdjax.config.tasks import TaskConfig
from kdjax.config.teacher import CacheConfig, HeadConfig, PretrainingConfig, TeacherConfig
from kdjax.config.train import (
    CheckpointConfig,
    ComputeConfig,
    Dtype,
    LogConfig,
    MeshConfig,
    OptimizerConfig,
    RampConfig,
    TrainConfig,
)
from kdjax.config.values import changed, differences, first_difference, new_name, plain, to_dict
from kdjax.config.verdicts import ContrastConfig, MarginsConfig

__all__ = [
    "KINDS",
    "ArmConfig",
    "BudgetConfig",
    "CacheConfig",
    "CheckpointConfig",
    "ComputeConfig",
    "Config",
    "ContaminationConfig",
    "ContrastConfig",
    "DataConfig",
    "Dtype",
    "EvaluationConfig",
    "FamilyName",
    "FewShotConfig",
    "FinetuneConfig",
    "HeadConfig",
    "LogConfig",
    "MarginsConfig",
    "MaskingConfig",
    "MeshConfig",
    "MinimalPairsConfig",
    "MlmProbeConfig",
    "ModelConfig",
    "ModelSpec",
    "OptimizerConfig",
    "PhaseConfig",
    "PlanConfig",
    "Pooling",
    "PretrainingConfig",
    "ProbeConfig",
    "Protocol",
    "RampConfig",
    "RangeConfig",
    "Schedule",
    "StartConfig",
    "TaskConfig",
    "TeacherConfig",
    "TermConfig",
    "TokenizerConfig",
    "TrainConfig",
    "TuneConfig",
    "changed",
    "differences",
    "first_difference",
    "new_name",
    "plain",
    "predictions",
    "to_dict",
]
