"""Directories that cannot be read or written: one line names the file or tensor, and nothing
changes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kdjax.errors import InputError
from kdjax.models import from_pretrained, init, pretrained_config, save_pretrained
from kdjax.models.families.naming import Tensors
from tests.models.fixtures import ConfigWith


@pytest.fixture
def saved(tmp_path: Path, config_with: ConfigWith) -> Path:
    directory = tmp_path / "teacher"
    save_pretrained(init(config_with(), 0), directory, card="first")
    return directory


def assert_refused(directory: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        from_pretrained(directory)
    message = str(caught.value)
    # A command prints it, so it has one line, which begins with the directory.
    assert "\n" not in message
    for word in (str(directory), *words):
        assert word in message, message


def change_settings(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda t: {k: v for k, v in t.items() if k != name}


QUERY = "bert.encoder.layer.1.attention.self.query.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    "name", [QUERY, WORDS, "bert.embeddings.LayerNorm.bias", "cls.predictions.bias"]
)
def test_missing_tensor_is_refused_by_name(saved: Path, name: str) -> None:
    change_tensors(saved, without(name))
    assert_refused(saved, "model.safetensors", name.removeprefix("bert."), "missing")


def test_half_an_mlm_head_is_refused(saved: Path) -> None:
    change_tensors(
        saved, lambda t: {k: v for k, v in t.items() if "cls.predictions.transform" not in k}
    )
    assert_refused(saved, "cls.predictions.transform.dense.bias", "missing")


@pytest.mark.parametrize(
    "name", ["bert.encoder.layer.3.output.dense.bias", "decoder.weight", "bert.embeddings.extra"]
)
def test_unexpected_tensor_is_refused_by_name(saved: Path, name: str) -> None:
    change_tensors(saved, lambda t: {**t, name: np.zeros(3, np.float32)})
    assert_refused(saved, name.removeprefix("bert."), "unexpected")


def test_fewer_layers_in_the_config_than_in_the_weights_are_refused(saved: Path) -> None:
    change_settings(saved, num_hidden_layers=2)
    assert_refused(saved, "unexpected tensor 'encoder.layer.2.", "2 layers")


def test_tensor_of_the_wrong_shape_is_refused_with_both_shapes(saved: Path) -> None:
    change_tensors(
        saved,
        lambda t: {
            **t,
            "bert.encoder.layer.0.intermediate.dense.weight": np.zeros((24, 40), np.float32),
        },
    )
    assert_refused(saved, "encoder.layer.0.intermediate.dense.weight", "(24, 40)", "(40, 24)")


def test_tensor_of_integers_is_refused(saved: Path) -> None:
    change_tensors(saved, lambda t: {**t, QUERY: np.zeros((24, 24), np.int32)})
    assert_refused(saved, "encoder.layer.1.attention.self.query.weight", "int32")


def test_vocabulary_of_another_size_is_refused(saved: Path) -> None:
    change_settings(saved, vocab_size=58)
    assert_refused(saved, "word_embeddings", "(57, 24)", "(58, 24)")


def test_decoder_that_is_not_tied_is_refused(saved: Path) -> None:
    change_tensors(saved, lambda t: {**t, "cls.predictions.decoder.weight": t[WORDS] + 1})
    assert_refused(saved, "cls.predictions.decoder.weight", "word_embeddings", "tied")


def test_two_different_output_biases_are_refused(saved: Path) -> None:
    change_tensors(
        saved, lambda t: {**t, "cls.predictions.decoder.bias": t["cls.predictions.bias"] + 1}
    )
    assert_refused(saved, "cls.predictions.decoder.bias", "cls.predictions.bias")


def test_tensor_under_two_names_is_refused(saved: Path) -> None:
    change_tensors(
        saved, lambda t: {**t, "bert.embeddings.LayerNorm.gamma": np.ones(24, np.float32)}
    )
    assert_refused(saved, "embeddings.LayerNorm.weight", "twice")


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_safetensors_are_refused(saved: Path, size: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert_refused(saved, "model.safetensors", "not a whole safetensors file")


def test_directory_without_weights_is_refused(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert_refused(saved, "no weights, expected model.safetensors")


def test_directory_without_a_config_is_refused(saved: Path) -> None:
    (saved / "config.json").unlink()
    assert_refused(saved, "config.json", "no such file")


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "no such file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "deberta"}, ("model_type", "'roberta'", "'bert'", "'roformer'", "'kdjax'")),
        ({"model_type": None}, ("model_type", "None")),
        ({"hidden_act": "relu"}, ("hidden_act", "'relu'", "gelu")),
        ({"hidden_act": ["gelu"]}, ("hidden_act", "['gelu']")),
        (
            {"position_embedding_type": "relative_key"},
            ("position_embedding_type", "relative_key", "absolute"),
        ),
        ({"is_decoder": True}, ("is_decoder",)),
        ({"hidden_size": "wide"}, ("hidden_size is 'wide'", "expected an integer")),
        ({"num_hidden_layers": 2.5}, ("num_hidden_layers is 2.5", "expected an integer")),
        ({"layer_norm_eps": True}, ("layer_norm_eps is True", "expected a number")),
        ({"model_type": ["bert"]}, ("model_type is ['bert']",)),
        ({"model_type": {}}, ("model_type is {}",)),
        ({"hidden_size": 10**40}, ("hidden_size is 1000", "expected at most 2147483647")),
        ({"num_hidden_layers": -1}, ("layers is -1",)),
        ({"hidden_size": None}, ("hidden_size is None", "expected an integer")),
        ({"vocab_size": [57]}, ("vocab_size is [57]", "expected an integer")),
        ({"layer_norm_eps": float("nan")}, ("norm_eps is nan",)),
        ({"layer_norm_eps": 10**400}, ("layer_norm_eps is 1000", "expected at most")),
        ({"hidden_dropout_prob": float("inf")}, ("hidden_dropout_prob is inf",)),
        ({"attention_probs_dropout_prob": "none"}, ("attention_probs_dropout_prob is 'none'",)),
        ({"num_attention_heads": 5}, ("5 heads do not divide the width 24",)),
        ({"num_hidden_layers": 0}, ("layers is 0",)),
    ],
)
def test_config_that_cannot_be_used_is_refused(
    saved: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    change_settings(saved, **changes)
    assert_refused(saved, "config.json", *words)
    # Reading the config alone refuses it too.
    with pytest.raises(InputError):
        pretrained_config(saved)


def test_more_layers_than_a_file_could_hold_are_refused_at_once(saved: Path) -> None:
    change_settings(saved, num_hidden_layers=10_000)
    assert_refused(saved, "tensors, expected those of 10,000 layers")


@pytest.mark.parametrize("token", [None, "0", -1, True, 1.5, [0]])
def test_padding_token_that_is_no_id_is_refused(
    token: object, config_with: ConfigWith, tmp_path: Path
) -> None:
    save_pretrained(init(config_with(norm="pre"), 0), tmp_path / "pre")
    change_settings(tmp_path / "pre", pad_token_id=token)
    assert_refused(tmp_path / "pre", "config.json: pad_token_id is", "expected an id, at least 0")


def test_setting_of_our_own_format_is_refused_by_name(
    config_with: ConfigWith, tmp_path: Path
) -> None:
    config = config_with(norm="pre", positions="rotary")
    save_pretrained(init(config, 0), tmp_path / "own")
    before = (tmp_path / "own" / "config.json").read_text()
    for name, value in {
        "layers": 10**30,
        "heads": -2,
        "width": "24",
        "rotary_base": None,
        "norm": [],
        "embedding_norm": 1,
        "depth": 3,
    }.items():
        (tmp_path / "own" / "config.json").write_text(before)
        change_settings(tmp_path / "own", **{name: value})
        assert_refused(tmp_path / "own", "config.json", name)


@pytest.mark.parametrize(
    "text", ["{", "[]", "", "null", "[" * 100_000, '{"hidden_size": 1' + "0" * 5000 + "}", "NaN"]
)
def test_config_that_is_not_json_is_refused(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text)
    assert_refused(saved, "config.json")


def test_index_that_names_a_missing_shard_is_refused(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved / "part.safetensors")
    # The index names one shard that is there and one that is not.
    index = saved / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {QUERY: "part.safetensors", WORDS: "gone.safetensors"}})
    )
    assert_refused(saved, "gone.safetensors")
    # An index without its map names nothing.
    index.write_text("{}")
    assert_refused(saved, "model.safetensors.index.json", "weight_map")


@pytest.mark.parametrize("shard", [None, 3, ["a"], "", ".", "../part.safetensors", "/etc/passwd"])
def test_index_that_names_no_file_beside_it_is_refused(saved: Path, shard: object) -> None:
    (saved / "model.safetensors").unlink()
    index = saved / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {QUERY: shard}}))
    assert_refused(saved, f"{index.name}: weight_map.{QUERY} is", "the name of a file beside it")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_by_tensor(saved: Path, number: float) -> None:
    change_tensors(saved, lambda t: {**t, QUERY: np.full((24, 24), number, np.float32)})
    assert_refused(saved, "encoder.layer.1.attention.self.query.weight", "not finite")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E8M0", "XX", "F4", "C64", "BOOL", None])
def test_tensor_of_a_type_that_is_not_read_is_refused(saved: Path, dtype: str | None) -> None:
    path = saved / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[QUERY]["dtype"] = dtype
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    assert_refused(saved, "model.safetensors")


def test_bits_flipped_anywhere_are_refused_or_only_change_a_number(saved: Path) -> None:
    path = saved / "model.safetensors"
    content = path.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    # The header is where a flip can do most.
    for place in rng.choice(size, 60, replace=False):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            model = from_pretrained(saved)
        except InputError as error:
            assert str(error).startswith(str(saved))
        else:
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.params))


def test_pickle_without_pytorch_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(b"")
    # As where PyTorch is not installed.
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_refused(saved, "pytorch_model.bin", "needs PyTorch")


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_saving_again_replaces_everything(
    saved: Path, config_with: ConfigWith, tmp_path: Path
) -> None:
    tokenizer = tmp_path / "some-tokenizer.json"
    tokenizer.write_text('{"version": "1.0"}')
    # Fewer layers, no card, and a tokenizer: nothing of the old model may stay.
    save_pretrained(init(config_with(layers=1), 1), saved, tokenizer=tokenizer)
    assert sorted(snapshot(saved)) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (saved / "tokenizer.json").read_text() == '{"version": "1.0"}'
    assert from_pretrained(saved).config == config_with(layers=1)
    # Nor a directory that was only needed on the way.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["some-tokenizer.json", "teacher"]


@pytest.mark.parametrize(
    "step",
    ["transformers_classes.to_json", "transformers_classes.write_tensors", "save_file", "_swap"],
)
def test_failed_save_leaves_the_directory_as_it_was(
    saved: Path, config_with: ConfigWith, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = snapshot(saved)

    # Each step of saving fails in turn.
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(f"kdjax.models.hf.{step}", fail)
    with pytest.raises(InputError, match=r"teacher: cannot be written: no space left"):
        save_pretrained(init(config_with(), 1), saved)
    # Same files, same bytes, and no temporary directory beside them.
    assert snapshot(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == ["teacher"]


def test_failed_rename_brings_the_old_directory_back(
    saved: Path, config_with: ConfigWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(saved)
    rename = type(saved).rename

    # The old directory was already moved away when the new one cannot come.
    def fail_for_the_new_directory(path: Path, target: Path) -> Path:
        if path.name.endswith(".tmp"):
            raise OSError("stale file handle")
        return rename(path, target)

    monkeypatch.setattr(type(saved), "rename", fail_for_the_new_directory)
    with pytest.raises(InputError, match="stale file handle"):
        save_pretrained(init(config_with(), 1), saved)
    assert snapshot(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == ["teacher"]


def test_missing_tokenizer_leaves_the_directory_as_it_was(
    saved: Path, config_with: ConfigWith
) -> None:
    before = snapshot(saved)
    with pytest.raises(InputError, match=r"nowhere\.json"):
        save_pretrained(init(config_with(), 1), saved, tokenizer=saved / "nowhere.json")
    assert snapshot(saved) == before


def test_directory_with_other_files_is_not_replaced(saved: Path, config_with: ConfigWith) -> None:
    # A directory that holds anything but a model is not ours to replace.
    (saved / "thesis.tex").write_text("years of work")
    before = snapshot(saved)
    with pytest.raises(InputError, match="holds other files"):
        save_pretrained(init(config_with(), 1), saved)
    assert snapshot(saved) == before


def test_file_in_the_place_of_the_directory_is_kept(
    tmp_path: Path, config_with: ConfigWith
) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out: "):
        save_pretrained(init(config_with(), 0), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
