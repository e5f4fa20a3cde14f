"""Record what transformers computes of fine-tuned models that this package saves.

    python -m tests.golden.record_task_heads        (needs PyTorch and transformers)

Each is written with its head, read by transformers' AutoModelForSequenceClassification and run in
PyTorch in float64; its logits go to task_heads.npz.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.config import ModelConfig, Pooling
from kdjax.models import Model, init_task_head
from kdjax.models.families.task_heads import TASK_HEADS, FinetunedHead
from kdjax.models.hf import write_files
from tests.golden.record_families import BATCH, FAMILIES, RELATIVES, params_of

GOLDEN = Path(__file__).with_name("task_heads.npz")
CLASSES = ("no", "perhaps", "yes")
CONFIGS: dict[str, tuple[ModelConfig, Pooling]] = {}
for family, model_config in {**FAMILIES, **RELATIVES}.items():
    if family in TASK_HEADS:
        CONFIGS[family] = (model_config, "first")
CONFIGS["modernbert by the mean"] = (FAMILIES["modernbert"], "mean")
"""Models that a class of transformers computes with a head, and what the head reads."""


def model_with_head(name: str) -> tuple[Model, FinetunedHead]:
    """Return an encoder and a head, all of whose parameters are away from their start."""
    config, pool = CONFIGS[name]
    params = {part: values for part, values in params_of(config).items() if part != "mlm"}
    rng = np.random.default_rng(1)

    def draw(leaf: Any) -> np.ndarray:
        return rng.normal(0.0, 0.3, leaf.shape).astype(np.float32)

    head = jax.tree.map(draw, init_task_head(config, len(CLASSES), 0))
    return Model(config, params), FinetunedHead(head, pool, CLASSES)


def main() -> None:
    """Write task_heads.npz beside this file."""
    import torch
    from transformers import AutoModelForSequenceClassification

    recorded = {}
    for name in CONFIGS:
        model, head = model_with_head(name)
        with tempfile.TemporaryDirectory() as directory:
            write_files(Path(directory), model, head=head)
            reference, report = AutoModelForSequenceClassification.from_pretrained(
                directory, output_loading_info=True, dtype=torch.float64
            )
        kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
        assert not any(report[kind] for kind in kinds), report
        assert reference.config.id2label == dict(enumerate(CLASSES))
        with torch.no_grad():
            logits = reference.eval()(
                input_ids=torch.tensor(BATCH["tokens"], dtype=torch.long),
                attention_mask=torch.tensor(BATCH["segments"], dtype=torch.long),
            ).logits
        recorded[name] = logits.numpy()
    np.savez_compressed(GOLDEN, **recorded)


if __name__ == "__main__":
    main()
