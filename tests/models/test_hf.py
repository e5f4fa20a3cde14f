"""Hugging Face directories, read and written, against recorded numbers of transformers' BERT in
PyTorch."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kdjax.config import ModelConfig
from kdjax.models import (
    FeatureRequest,
    forward,
    from_pretrained,
    init,
    pretrained_config,
    save_pretrained,
)
from kdjax.models.families.naming import Tensors
from tests.golden import pytorch
from tests.models.fixtures import BatchOf, ConfigWith, Scramble
from tests.support import features

MASKED_LM = pytorch.DIRECTORY / "masked_lm"


def as_batch(recorded: dict[str, np.ndarray], slots: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Make kdjax's batch of a recorded one: a document a row, logits at `slots` of each row."""
    tokens = recorded["tokens"]
    return {
        "tokens": tokens.astype(np.int32),
        "segments": recorded["mask"].astype(np.int32),
        "positions": np.tile(np.arange(tokens.shape[1], dtype=np.int32), (len(tokens), 1)),
        "valid": recorded["mask"],
        "types": recorded["types"].astype(np.int32),
        "slots": np.tile(np.array(slots, np.int32), (len(tokens), 1)),
    }


def with_settings(directory: Path, **changes: Any) -> Path:
    """Copy the recorded masked language model with other settings in its config.json."""
    shutil.copytree(MASKED_LM, directory)
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return directory


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh"])
def test_padded_batches_equal_pytorch(tmp_path: Path, act: str) -> None:
    model = from_pretrained(with_settings(tmp_path / "model", hidden_act=act))
    recorded = pytorch.read(act)
    batch = as_batch(recorded, slots=(0, 3, 8, 15))
    got = forward(*model, batch, features.request(model.config))
    # Row by row, without what is behind a document's end.
    for row, size in enumerate((16, 9, 4)):
        features.assert_equal(got, row, slice(0, size), recorded, row, slots=batch["slots"][row])


def packed(recorded: dict[str, np.ndarray], name: str, length: int) -> np.ndarray:
    """Pack an array of the recorded documents into rows as `PACKED` says; the rest of a row is
    0."""
    rows = np.zeros((len(pytorch.PACKED), length), np.int32)
    documents = iter(recorded[name])
    for row, sizes in zip(rows, pytorch.PACKED, strict=True):
        starts = itertools.accumulate(sizes, initial=0)
        for start, size in zip(starts, sizes, strict=False):
            row[start : start + size] = next(documents)[:size]
    return rows


def test_packed_document_equals_pytorch_on_it_alone(batch_of: BatchOf) -> None:
    model = from_pretrained(MASKED_LM)
    recorded = pytorch.read("documents")
    batch = batch_of(pytorch.PACKED, slots=12, types=True)
    # The documents that PyTorch saw alone, one a row, stand side by side here.
    for name in ("tokens", "types"):
        batch[name] = packed(recorded, name, 16)
    got = forward(*model, batch, features.request(model.config))
    document = 0
    for row, sizes in enumerate(pytorch.PACKED):
        for start, stop in itertools.pairwise(np.cumsum([0, *sizes])):
            features.assert_equal(
                got, row, slice(start, stop), recorded, document, slots=batch["slots"][row]
            )
            document += 1
    # All recorded documents were met.
    assert document == len(recorded["tokens"])


def test_exact_and_tanh_gelu_give_different_logits() -> None:
    config, params = from_pretrained(MASKED_LM)
    batch = as_batch(pytorch.read("gelu"), slots=(0, 1, 2, 3))
    request = FeatureRequest(logits=True)
    exact = forward(replace(config, gelu="exact"), params, batch, request).logits
    tanh = forward(replace(config, gelu="tanh"), params, batch, request).logits
    # The two formulas are near each other: this tells that the comparison would see a wrong one.
    assert np.abs(exact - tanh).max() > 2e-5


def test_pretrained_config_reads_every_setting(tmp_path: Path) -> None:
    changes = {
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.2,
        "attention_probs_dropout_prob": 0.05,
    }
    directory = with_settings(tmp_path / "model", **changes)
    # The config alone is read without the weights.
    assert pretrained_config(directory) == from_pretrained(directory).config
    assert pretrained_config(directory) == ModelConfig(
        layers=3,
        width=24,
        heads=3,
        ffn=40,
        vocab_size=57,
        max_positions=20,
        gelu="tanh",
        dropout=0.2,
        attention_dropout=0.05,
        norm_eps=1e-7,
    )


def rewritten(directory: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """Copy the recorded masked language model with other tensors; `change` takes and returns a
    dict."""
    shutil.copytree(MASKED_LM, directory)
    path = directory / "model.safetensors"
    tensors = change(load_file(path))
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"format": "pt"})
    return directory


def legacy(tensors: Tensors) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        with_gamma = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        renamed[with_gamma.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    return renamed


def untied_copies(tensors: Tensors) -> Tensors:
    return {
        **tensors,
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
    }


def extras(tensors: Tensors) -> Tensors:
    return {
        **tensors,
        "bert.embeddings.position_ids": np.arange(20)[None],
        "bert.pooler.dense.weight": np.ones((24, 24), np.float32),
        "bert.pooler.dense.bias": np.ones(24, np.float32),
        "cls.seq_relationship.weight": np.ones((2, 24), np.float32),
        "cls.seq_relationship.bias": np.ones(2, np.float32),
    }


def bias_under_the_decoder(tensors: Tensors) -> Tensors:
    return {
        name.replace("cls.predictions.bias", "cls.predictions.decoder.bias"): t
        for name, t in tensors.items()
    }


def assert_same_params(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), actual, expected))


@pytest.mark.parametrize(
    "change",
    [
        legacy,
        untied_copies,
        extras,
        bias_under_the_decoder,
        lambda tensors: {name.removeprefix("bert."): tensor for name, tensor in tensors.items()},
        lambda tensors: legacy(extras(untied_copies(tensors))),
    ],
    ids=["legacy", "copies", "extras", "decoder-bias", "no-prefix", "all"],
)
def test_model_stored_in_another_way_reads_the_same(
    tmp_path: Path, change: Callable[[Tensors], Tensors]
) -> None:
    directory = rewritten(tmp_path / "model", change)
    # The change did something, or the test would show nothing.
    assert set(load_file(directory / "model.safetensors")) != set(
        load_file(MASKED_LM / "model.safetensors")
    )
    assert_same_params(from_pretrained(directory).params, from_pretrained(MASKED_LM).params)


def test_bare_encoder_reads_without_an_mlm_head_and_equals_pytorch() -> None:
    assert "embeddings.word_embeddings.weight" in load_file(
        pytorch.DIRECTORY / "encoder" / "model.safetensors"
    )
    # An encoder's tensors have no prefix.
    model = from_pretrained(pytorch.DIRECTORY / "encoder")
    assert "mlm" not in model.params
    recorded = pytorch.read("encoder")
    # Without a head there are no logits to compare.
    got = forward(*model, as_batch(recorded), features.request(model.config, logits=False))
    for row, size in enumerate((16, 7)):
        features.assert_equal(got, row, slice(0, size), recorded, row)


def test_pretraining_checkpoint_reads_as_a_masked_lm() -> None:
    model = from_pretrained(pytorch.DIRECTORY / "pretraining")
    recorded = pytorch.read("pretraining")
    batch = as_batch(recorded, slots=(0, 5, 10, 15))
    got = forward(*model, batch, features.request(model.config))
    features.assert_equal(got, 0, slice(0, 16), recorded, 0, slots=batch["slots"][0])


def test_sharded_weights_read_the_same() -> None:
    sharded = pytorch.DIRECTORY / "sharded"
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert_same_params(from_pretrained(sharded).params, from_pretrained(MASKED_LM).params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_become_float32(tmp_path: Path, dtype: Any) -> None:
    directory = rewritten(
        tmp_path / "model", lambda tensors: {n: t.astype(dtype) for n, t in tensors.items()}
    )
    stored = load_file(directory / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert stored.dtype == dtype
    got = from_pretrained(directory).params["embeddings"]["word"]["embedding"]
    assert got.dtype == np.float32
    # Halves are exact in float32.
    np.testing.assert_array_equal(got, stored.astype(np.float32))


@pytest.mark.parametrize("kind", ["masked_lm", "encoder"])
def test_saved_tensors_and_settings_are_those_transformers_writes(
    tmp_path: Path, kind: str
) -> None:
    theirs = pytorch.DIRECTORY / kind
    save_pretrained(from_pretrained(theirs), tmp_path / "out")
    # The pooler belongs to sentence tasks, and kdjax has none.
    expected = load_file(theirs / "model.safetensors")
    expected = {n: t for n, t in expected.items() if not n.startswith("pooler.")}
    actual = load_file(tmp_path / "out" / "model.safetensors")
    assert actual.keys() == expected.keys()
    # Bit for bit: transformers reads our files as its own.
    for name, tensor in actual.items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, expected[name])
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    written_by_transformers = json.loads((theirs / "config.json").read_text())
    # A subset: transformers writes more settings, of which ours leaves out those it has no use for.
    assert settings.items() <= written_by_transformers.items()


def test_saved_model_reads_back_equal_with_its_card(
    tmp_path: Path, config_with: ConfigWith, scrambled: Scramble
) -> None:
    model = init(config_with(), 3)._replace(params=scrambled(init(config_with(), 3).params))
    save_pretrained(model, tmp_path / "out", card="# A card\n")
    back = from_pretrained(tmp_path / "out")
    assert back.config == model.config
    assert_same_params(back.params, model.params)
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"
    # No temporary file is left.
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_minilm_equals_pytorch() -> None:
    directory = pytorch.minilm_directory()
    if directory is None:
        pytest.skip("the data packages of requirements-data.txt are not installed")
    model = from_pretrained(directory)
    assert "mlm" not in model.params
    assert model.config.layers == 6
    recorded = pytorch.read("minilm")
    got = forward(*model, as_batch(recorded), features.request(model.config, logits=False))
    for row, size in enumerate(recorded["mask"].sum(1)):
        features.assert_equal(got, row, slice(0, int(size)), recorded, row)


def test_settings_that_a_config_leaves_out_are_transformers_defaults(tmp_path: Path) -> None:
    (tmp_path / "left_out").mkdir()
    (tmp_path / "left_out" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "whole").mkdir()
    shutil.copyfile(pytorch.DIRECTORY / "default_config.json", tmp_path / "whole" / "config.json")
    actual = pretrained_config(tmp_path / "left_out")
    assert actual == pretrained_config(tmp_path / "whole")
    # The recorded defaults are transformers' own, written by it.
    written = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert (actual.layers, actual.norm_eps) == (
        written["num_hidden_layers"],
        written["layer_norm_eps"],
    )


def test_reading_and_writing_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    script = f"""
import sys
from kdjax.config import ModelConfig
from kdjax.models import from_pretrained, init, save_pretrained
config = ModelConfig(layers=1, width=8, heads=2, ffn=8, vocab_size=9)
save_pretrained(init(config, 0), {str(tmp_path / "bert")!r})
from_pretrained({str(tmp_path / "bert")!r})
assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
