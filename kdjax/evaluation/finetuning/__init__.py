"""Fine-tuning on labelled tasks: the whole encoder with a fresh head, by several protocols."""

from kdjax.evaluation.finetuning.by_protocol import TunedEncoder, finetune, finetune_one
from kdjax.evaluation.finetuning.intermediate import tuned_start
from kdjax.evaluation.finetuning.predicted import PredictedTask, predict_unlabelled
from kdjax.evaluation.finetuning.protocols import check_tasks
from kdjax.evaluation.finetuning.results import (
    FinetunedTask,
    FinetuningTrial,
    Setting,
    right_rows,
    squared_errors,
)
from kdjax.evaluation.finetuning.scoring import predict
from kdjax.evaluation.finetuning.trial import EncoderSetup, FinetunedModel

__all__ = [
    "EncoderSetup",
    "FinetunedModel",
    "FinetunedTask",
    "FinetuningTrial",
    "PredictedTask",
    "Setting",
    "TunedEncoder",
    "check_tasks",
    "finetune",
    "finetune_one",
    "predict",
    "predict_unlabelled",
    "right_rows",
    "squared_errors",
    "tuned_start",
]
