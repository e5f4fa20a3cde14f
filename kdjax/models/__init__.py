"""Encoders: building, running, and reading and writing Hugging Face directories.

Start at `functional.forward`, which takes parameters and a batch to features by the modules of
`encoder` and `layers`.
"""

from kdjax.models.features import FeatureRequest, Features
from kdjax.models.functional import (
    Model,
    ParameterCounts,
    abstract_params,
    classify,
    count_params,
    forward,
    init,
    init_mlm_head,
    init_task_head,
    pooled_state,
    task_scores,
)
from kdjax.models.hf import check_saveable, from_pretrained, pretrained_config, save_pretrained

__all__ = [
    "FeatureRequest",
    "Features",
    "Model",
    "ParameterCounts",
    "abstract_params",
    "check_saveable",
    "classify",
    "count_params",
    "forward",
    "from_pretrained",
    "init",
    "init_mlm_head",
    "init_task_head",
    "pooled_state",
    "pretrained_config",
    "save_pretrained",
    "task_scores",
]
