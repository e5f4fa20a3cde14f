"""Models of every family that transformers writes, in PyTorch and here: every feature, with padding
and with packing, and directories in and out.

    python -m pytest -m parity tests/parity/test_families.py -s

prints the table of docs/models.md: the largest differences of each family.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import (
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForMaskedLM

from kdjax.models import FeatureRequest, forward, from_pretrained, save_pretrained
from tests.golden import record_families
from tests.parity.families import features, read_by_transformers

BERT_SIZES: dict[str, Any] = {
    "vocab_size": 57,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 22,
}
MODERN_SIZES: dict[str, Any] = {
    **BERT_SIZES,
    "num_hidden_layers": 5,
    "local_attention": 6,
    "pad_token_id": 0,
    **dict.fromkeys(("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id")),
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertConfig(**BERT_SIZES),
    "roberta": lambda: RobertaConfig(**BERT_SIZES, type_vocab_size=1),
    "xlm-roberta": lambda: XLMRobertaConfig(**BERT_SIZES, pad_token_id=1),
    "camembert": lambda: CamembertConfig(**BERT_SIZES, type_vocab_size=1, pad_token_id=3),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=57,
        dim=24,
        n_layers=3,
        n_heads=3,
        hidden_dim=40,
        max_position_embeddings=20,
        activation="gelu_new",
    ),
    "modernbert": lambda: ModernBertConfig(**MODERN_SIZES),
    "modernbert with biases, every second layer global": lambda: ModernBertConfig(
        **MODERN_SIZES,
        norm_bias=True,
        attention_bias=True,
        mlp_bias=True,
        classifier_bias=True,
        global_attn_every_n_layers=2,
        global_rope_theta=500.0,
        local_rope_theta=20.0,
    ),
}
DOCUMENTS = (7, 5, 4)
"""Lengths of the documents: padded, a row each; packed, one row."""
TOLERANCE = 1e-4


def written_model(directory: Path, name: str, **options: Any) -> Any:
    """Write a random model, every parameter of which is away from its start; return it in
    float64."""
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(CONFIGS[name]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(directory, **options)
    return read_by_transformers(directory)


def documents(pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Return documents, a row each, padded with a token, and where they are valid."""
    valid = np.arange(max(DOCUMENTS)) < np.array(DOCUMENTS)[:, None]
    tokens = np.random.default_rng(0).integers(5, 57, valid.shape)
    return np.where(valid, tokens, pad).astype(np.int32), valid


def packed(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Return the same documents one after another in a row."""
    sizes = zip(tokens, DOCUMENTS, strict=True)
    return {
        "tokens": np.concatenate([row[:size] for row, size in sizes])[None],
        "segments": np.repeat([1, 2, 3], DOCUMENTS)[None].astype(np.int32),
        "positions": np.concatenate([np.arange(size) for size in DOCUMENTS])[None].astype(np.int32),
    }


def largest_differences(ours: Any, theirs: dict[str, Any], *, in_one_row: bool) -> dict[str, float]:
    """Return the largest absolute difference of each kind of feature inside documents."""
    differences: dict[str, float] = {}
    start = 0
    for document, size in enumerate(DOCUMENTS):
        row = 0 if in_one_row else document
        span = slice(start, start + size) if in_one_row else slice(size)
        start += size
        for kind in ("hidden", "scores", "query", "key", "value", "logits"):
            pairs = [(ours.token_logits, theirs["logits"])]
            if kind != "logits":
                layers = theirs[kind]
                pairs = [(getattr(ours, kind)[n], layers[n]) for n in layers]
            for got, want in pairs:
                actual = np.asarray(got)[row]
                expected = want[document]
                if kind in ("hidden", "logits"):
                    difference = actual[span] - expected[:size]
                elif kind == "scores":
                    difference = actual[:, span, span] - expected[:, :size, :size]
                else:
                    difference = actual[:, span] - expected[:, :size]
                worst = float(np.abs(difference).max())
                differences[kind] = max(differences.get(kind, 0.0), worst)
    return differences


@pytest.mark.parametrize("name", CONFIGS)
def test_every_feature_equals_pytorchs_padded_and_packed(tmp_path: Path, name: str) -> None:
    reference = written_model(tmp_path / "theirs", name)
    config, params = from_pretrained(tmp_path / "theirs")
    tokens, valid = documents(reference.config.pad_token_id)
    want = features(reference, tokens, valid)
    layers = frozenset(range(1, config.layers + 1))
    assert set(want["scores"]) == layers and set(want["hidden"]) == layers | {0}
    request = FeatureRequest(layers, layers, layers, layers, hidden=layers | {0}, token_logits=True)
    padded = {
        "tokens": tokens,
        "segments": valid.astype(np.int32),
        "positions": np.tile(np.arange(tokens.shape[1], dtype=np.int32), (len(tokens), 1)),
    }
    for batch, in_one_row in ((padded, False), (packed(tokens), True)):
        got = forward(config, params, batch, request)
        differences = largest_differences(got, want, in_one_row=in_one_row)
        cells = " | ".join(f"{differences[kind]:.0e}" for kind in differences)
        print(f"\n| {name}, {'packed' if in_one_row else 'padded'} | {cells} |", end="")
        assert max(differences.values()) < TOLERANCE


def unread_rows(config: Any) -> int:
    """Return how many first rows of the position table no position reads."""
    counts_from_padding = config.model_type in ("roberta", "xlm-roberta", "camembert")
    return config.pad_token_id + 1 if counts_from_padding else 0


@pytest.mark.parametrize("name", CONFIGS)
def test_directory_of_transformers_is_written_again_byte_for_byte(
    tmp_path: Path, name: str
) -> None:
    reference = written_model(tmp_path / "theirs", name)
    save_pretrained(from_pretrained(tmp_path / "theirs"), tmp_path / "ours")
    expected = load_file(tmp_path / "theirs" / "model.safetensors")
    actual = load_file(tmp_path / "ours" / "model.safetensors")
    assert actual.keys() == expected.keys()
    for tensor, array in expected.items():
        rows = unread_rows(reference.config) if "position_embeddings" in tensor else 0
        np.testing.assert_array_equal(actual[tensor][rows:], array[rows:], err_msg=tensor)
        assert not actual[tensor][:rows].any()
    # transformers reads ours, and says the same of it.
    again = read_by_transformers(tmp_path / "ours")
    tokens, valid = documents(reference.config.pad_token_id)
    want = features(reference, tokens, valid)["logits"]
    np.testing.assert_array_equal(features(again, tokens, valid)["logits"][valid], want[valid])


@pytest.mark.parametrize("name", CONFIGS)
def test_sharded_directory_reads_the_same_as_one_file(tmp_path: Path, name: str) -> None:
    written_model(tmp_path / "one", name)
    written_model(tmp_path / "sharded", name, max_shard_size="10KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    one = from_pretrained(tmp_path / "one")
    sharded = from_pretrained(tmp_path / "sharded")
    assert one.config == sharded.config
    jax.tree.map(np.testing.assert_array_equal, one.params, sharded.params)


def test_recorded_features_are_what_pytorch_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = dict(np.load(record_families.GOLDEN))
    monkeypatch.setattr(record_families, "GOLDEN", tmp_path / "families.npz")
    record_families.main()
    computed = dict(np.load(tmp_path / "families.npz"))
    assert computed.keys() == recorded.keys()
    for name, array in recorded.items():
        np.testing.assert_allclose(computed[name], array, rtol=0, atol=2e-5, err_msg=name)
