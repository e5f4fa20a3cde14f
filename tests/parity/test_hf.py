"""Hugging Face directories that transformers and PyTorch write and read, live."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForPreTraining, BertModel

from kdjax.models import forward, from_pretrained, init, pretrained_config, save_pretrained
from tests.golden import pytorch, record_pytorch
from tests.models.fixtures import BatchOf, ConfigWith, Scramble
from tests.parity import bert
from tests.study.conftest import kdjax
from tests.support import features, small_study


@pytest.mark.parametrize("name", record_pytorch.RECORDINGS)
def test_recorded_numbers_are_what_pytorch_computes(name: str) -> None:
    computed = record_pytorch.RECORDINGS[name]()
    recorded = pytorch.read(name)
    # The same features of the same layers, within rounding.
    assert jax.tree.structure(computed) == jax.tree.structure(recorded)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), computed, recorded
    )


def test_recorded_models_are_what_transformers_writes(tmp_path: Path) -> None:
    """The names of files, tensors and settings are compared; random numbers may differ between
    versions of PyTorch."""
    # Models are saved anew by the transformers that is installed.
    record_pytorch.save_models(tmp_path)
    for directory in ("masked_lm", "encoder", "pretraining"):
        computed = bert.stored(tmp_path / directory)
        assert computed == bert.stored(pytorch.DIRECTORY / directory)
    assert (
        from_pretrained(tmp_path / "sharded").config
        == from_pretrained(pytorch.DIRECTORY / "sharded").config
    )


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh"])
def test_padded_batches_equal_pytorch(tmp_path: Path, batch_of: BatchOf, act: str) -> None:
    reference = bert.random_bert(seed=1, hidden_act=act)
    reference.save_pretrained(tmp_path)
    model = from_pretrained(tmp_path)
    batch = batch_of([[16], [9], [4]], types=True)
    got = forward(*model, batch, features.request(model.config))
    want = bert.features(reference, batch["tokens"], batch["valid"], batch["types"])
    for row, size in enumerate((16, 9, 4)):
        features.assert_equal(got, row, slice(0, size), want, row, slots=batch["slots"][row])


@pytest.mark.parametrize("kind", [BertModel, BertForPreTraining])
def test_models_with_other_heads_equal_pytorch(
    tmp_path: Path, batch_of: BatchOf, kind: Any
) -> None:
    reference = bert.random_bert(kind, seed=2)
    reference.save_pretrained(tmp_path)
    model = from_pretrained(tmp_path)
    has_head = kind is BertForPreTraining
    assert ("mlm" in model.params) == has_head
    batch = batch_of([[16], [7]])
    want = bert.features(reference, batch["tokens"], batch["valid"])
    got = forward(*model, batch, features.request(model.config, logits=has_head))
    for row, size in enumerate((16, 7)):
        slots = batch["slots"][row] if has_head else None
        features.assert_equal(got, row, slice(0, size), want, row, slots=slots)


def test_pickled_weights_read_the_same(tmp_path: Path) -> None:
    reference = bert.random_bert()
    reference.save_pretrained(tmp_path)
    want = from_pretrained(tmp_path).params
    # Only the pickle is left to read.
    (tmp_path / "model.safetensors").unlink()
    torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), from_pretrained(tmp_path).params, want)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    reference = bert.random_bert().to(dtype)
    reference.save_pretrained(tmp_path)
    got = from_pretrained(tmp_path).params["embeddings"]["word"]["embedding"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(
        got, reference.bert.embeddings.word_embeddings.weight.detach().float().numpy()
    )


def assert_nothing_amiss(report: dict[str, Any]) -> None:
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize("gelu", ["exact", "tanh"])
def test_transformers_loads_a_saved_model_with_equal_logits(
    tmp_path: Path, config_with: ConfigWith, batch_of: BatchOf, scrambled: Scramble, gelu: str
) -> None:
    config = config_with(gelu=gelu, norm_eps=1e-6)
    model = init(config, 3)._replace(params=scrambled(init(config, 3).params))
    save_pretrained(model, tmp_path / "out")
    reference, report = BertForMaskedLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation="eager"
    )
    assert_nothing_amiss(report)
    batch = batch_of([[16], [9]], types=True)
    want = bert.features(reference.eval(), batch["tokens"], batch["valid"], batch["types"])
    for row, size in enumerate((16, 9)):
        got = forward(*model, batch, features.request(config))
        features.assert_equal(got, row, slice(0, size), want, row, slots=batch["slots"][row])
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["architectures"] == ["BertForMaskedLM"]
    assert (settings["hidden_dropout_prob"], settings["attention_probs_dropout_prob"]) == (0.3, 0.2)


def test_transformers_loads_a_saved_bare_encoder(
    tmp_path: Path, config_with: ConfigWith, batch_of: BatchOf, scrambled: Scramble
) -> None:
    params = scrambled({k: v for k, v in init(config_with(), 3).params.items() if k != "mlm"})
    save_pretrained(init(config_with(), 3)._replace(params=params), tmp_path / "out")
    reference, report = BertModel.from_pretrained(
        tmp_path / "out", output_loading_info=True, add_pooling_layer=False
    )
    assert_nothing_amiss(report)
    batch = batch_of([[16]])
    want = bert.features(reference.eval(), batch["tokens"])
    got = forward(config_with(), params, batch, features.request(config_with(), logits=False))
    features.assert_equal(got, 0, slice(0, 16), want, 0)


def test_transformers_loads_a_fitted_teacher(tmp_path: Path) -> None:
    recipe = small_study.write(tmp_path / "recipe")
    ended = kdjax("teacher", recipe, "--out", tmp_path / "fitted")
    assert ended.status == 0, ended.err
    model, report = BertForMaskedLM.from_pretrained(tmp_path / "fitted", output_loading_info=True)
    assert_nothing_amiss(report)
    assert model.config.num_hidden_layers == small_study.TEACHER["layers"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "fitted")
    assert len(tokenizer) <= model.config.vocab_size


def test_minilm_equals_pytorch() -> None:
    directory = pytorch.minilm_directory()
    assert directory is not None
    model = from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    text = ["The river froze early that year, and nobody crossed it until March.", "A short one."]
    encoded = {
        k: v.astype(np.int32) for k, v in tokenizer(text, padding=True, return_tensors="np").items()
    }
    mask = encoded["attention_mask"]
    batch = {"tokens": encoded["input_ids"], "segments": mask, "types": encoded["token_type_ids"]}
    batch["positions"] = np.tile(np.arange(mask.shape[1]), (2, 1))
    reference = BertModel.from_pretrained(directory, attn_implementation="eager").eval()
    want = bert.features(reference, batch["tokens"], mask, batch["types"])
    got = forward(*model, batch, features.request(model.config, logits=False))
    for row, size in enumerate(mask.sum(1)):
        features.assert_equal(got, row, slice(0, int(size)), want, row)


def test_antiberty_and_its_mlm_head_equal_pytorch() -> None:
    """A published model whose MLM head is its own, where a package holds it."""
    antiberty = pytest.importorskip("antiberty")
    directory = Path(antiberty.__file__).parent / "trained_models" / "AntiBERTy_md_smooth"
    model = from_pretrained(directory)
    reference = BertForMaskedLM.from_pretrained(directory, attn_implementation="eager").eval()
    rng = np.random.default_rng(0)
    sizes = (30, 21)
    valid = np.arange(30)[None] < np.array(sizes)[:, None]
    batch = {
        "tokens": np.where(valid, rng.integers(5, 25, (2, 30)), 0),
        "segments": valid.astype(np.int32),
    }
    batch |= {
        "positions": np.tile(np.arange(30), (2, 1)),
        "slots": np.array([[1, 5, 29], [0, 7, 20]]),
    }
    want = bert.features(reference, batch["tokens"], valid)
    got = forward(*model, batch, features.request(model.config))
    for row, size in enumerate(sizes):
        features.assert_equal(got, row, slice(0, size), want, row, slots=batch["slots"][row])


def test_settings_that_a_config_leaves_out_are_transformers_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    BertConfig().save_pretrained(tmp_path / "whole")
    assert pretrained_config(tmp_path) == pretrained_config(tmp_path / "whole")
