"""transformers' BERT in PyTorch: random models, and every feature that kdjax's forward pass hands
out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import BertConfig, BertForMaskedLM

SETTINGS: dict[str, Any] = {
    "vocab_size": 57,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "attn_implementation": "eager",
    "layer_norm_eps": 1e-7,
}


def random_bert(kind: Any = BertForMaskedLM, seed: int = 0, **changes: Any) -> Any:
    """Make a random BERT in which every parameter is away from its start.

    Args:
        kind: class of the model.
        seed: of its parameters.
        changes: entries of `BertConfig` that replace those of `SETTINGS`.
    """
    torch.manual_seed(seed)
    model = kind(BertConfig(**{**SETTINGS, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def features(
    model: Any, tokens: np.ndarray, mask: np.ndarray | None = None, types: np.ndarray | None = None
) -> dict[str, Any]:
    """Compute all features of a batch; queries, keys and values are what the linear layers put out.

    Args:
        model: `BertModel`, or a model that holds one as `bert`.
        tokens: `[B, L]`.
        mask: `[B, L]`, true at tokens that are not padding; None: no padding.
        types: `[B, L]` token types; None: all 0.

    Returns: `query`, `key`, `value` (layer -> `[B, H, L, d]`), `scores` (layer -> `[B, H, L, L]`,
        before mask and softmax), `hidden` (layer -> `[B, L, D]`, 0 is the embedding output) and, of
        a model with an MLM head, `logits` (`[B, L, V]`).
    """
    # The encoder stands alone, or within a model that has a head.
    encoder = getattr(model, "bert", model)
    heads = model.config.num_attention_heads
    layers = range(1, model.config.num_hidden_layers + 1)
    outputs: dict[str, dict[int, np.ndarray]] = {"query": {}, "key": {}, "value": {}}

    # Hooks keep what each linear layer of attention puts out.
    hooks = []
    for n, layer in zip(layers, encoder.encoder.layer, strict=True):
        for part, collected in outputs.items():

            def keep(
                module: Any, inputs: Any, out: Any, collected: Any = collected, n: int = n
            ) -> None:
                collected[n] = out.unflatten(-1, (heads, -1)).transpose(1, 2).numpy()

            hooks.append(getattr(layer.attention.self, part).register_forward_hook(keep))
    with torch.no_grad():
        encoded = model(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=None if mask is None else torch.tensor(mask, dtype=torch.long),
            token_type_ids=None if types is None else torch.tensor(types, dtype=torch.long),
            output_hidden_states=True,
        )
    for hook in hooks:
        hook.remove()

    features: dict[str, Any] = dict(outputs)
    # Transformers hands out no scores, so they are made of its queries and keys.
    width = outputs["query"][1].shape[-1]
    features["scores"] = {
        n: outputs["query"][n] @ outputs["key"][n].swapaxes(-1, -2) / np.float32(width**0.5)
        for n in layers
    }
    features["hidden"] = {n: hidden.numpy() for n, hidden in enumerate(encoded.hidden_states)}
    logits = getattr(encoded, "logits", getattr(encoded, "prediction_logits", None))
    if logits is not None:
        features["logits"] = logits.numpy()
    return features


def stored(directory: Path) -> dict[str, Any]:
    """Read what a saved model is stored as: the shape of each tensor by its name, and the names of
    the settings."""
    tensors = load_file(directory / "model.safetensors")
    settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return {
        **shapes,
        "architectures": settings["architectures"],
        "model_type": settings["model_type"],
    }
