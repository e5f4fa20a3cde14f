"""Models of transformers in PyTorch, of any family: reading them, and every feature that kdjax's
forward pass hands out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForMaskedLM
from transformers.masking_utils import eager_mask

RECORDING = "recording"
"""Name of the attention below in transformers' registry."""
_seen: list[dict[str, torch.Tensor]] = []
"""What each layer's attention was given in the forward pass that goes on."""


def _recording_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute plain attention, and keep queries, keys (after any rotation), values and scores."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(2, 3) * scale
    _seen.append({"query": query, "key": key, "value": value, "scores": scores})
    if attention_mask is not None:
        scores = scores + attention_mask
    context = torch.softmax(scores, dim=-1) @ value
    return context.transpose(1, 2).contiguous(), None


AttentionInterface.register(RECORDING, _recording_attention)
AttentionMaskInterface.register(RECORDING, eager_mask)


def read_by_transformers(directory: Path) -> Any:
    """Return a saved model in float64, of which no tensor is missing or left over."""
    model, report = AutoModelForMaskedLM.from_pretrained(
        directory, output_loading_info=True, dtype=torch.float64
    )
    problems = [report[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched")]
    assert not any(problems), report
    return model.eval()


def features(
    model: Any, tokens: np.ndarray, mask: np.ndarray, types: np.ndarray | None = None
) -> dict[str, Any]:
    """Compute all features of a batch.

    Args:
        model: a model with an MLM head; of classes without transformers' attention interface there
            are logits and hidden states alone.
        tokens: `[B, L]`.
        mask: `[B, L]`, true at tokens that are not padding.
        types: `[B, L]` token types; None: all 0.

    Returns: `query`, `key`, `value` (layer -> `[B, H, L, d]`), `scores` (layer -> `[B, H, L, L]`,
        before mask and softmax), `hidden` (layer -> `[B, L, D]`, 0 is the embedding output) and
        `logits` (`[B, L, V]`).
    """
    _seen.clear()
    before = model.config._attn_implementation
    inputs = {
        "input_ids": torch.tensor(tokens, dtype=torch.long),
        "attention_mask": torch.tensor(mask, dtype=torch.long),
    }
    if types is not None:
        inputs["token_type_ids"] = torch.tensor(types, dtype=torch.long)
    if model._supports_attention_backend:
        model.set_attn_implementation(RECORDING)
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
        # Not every class hands out its last layer behind the final norm.
        last = model.base_model(**inputs).last_hidden_state
    layers = list(enumerate(_seen[: len(_seen) // 2], start=1))
    if model._supports_attention_backend:
        model.set_attn_implementation(before)
    computed: dict[str, Any] = {"logits": output.logits.numpy()}
    for name in ("query", "key", "value", "scores"):
        computed[name] = {n: seen[name].numpy() for n, seen in layers}
    hidden = {n: x.numpy() for n, x in enumerate(output.hidden_states)}
    computed["hidden"] = {**hidden, len(hidden) - 1: last.numpy()}
    return computed
