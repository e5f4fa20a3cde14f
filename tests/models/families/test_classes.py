"""Models of every kind: the class as which they are saved, and that they are read bit for bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kdjax import recipes
from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models import (
    FeatureRequest,
    Model,
    abstract_params,
    forward,
    from_pretrained,
    save_pretrained,
    zoo,
)
from kdjax.models.families import transformers_classes
from kdjax.models.families.roformer import halves_of_neighbours, neighbours_of_halves
from tests.golden import record_families
from tests.golden.record_families import BATCH, FAMILIES, RELATIVES, params_of
from tests.models.fixtures import ConfigWith

CONFIGS = {**FAMILIES, **RELATIVES}
MODERN = {
    "family": "modernbert",
    "norm": "pre",
    "first_norm": False,
    "positions": "rotary",
    "type_vocab_size": 0,
    "ffn_gated": True,
    "dropout_sites": "modernbert",
}

SAVED_AS = {
    "bert": ({}, {"gelu": "tanh"}),
    "roformer": ({"positions": "rotary"}, {"positions": "rotary", "gelu": "tanh"}),
    "roberta-prelayernorm": ({"norm": "pre"}, {"norm": "pre", "pad_token_id": 3}),
    "megatron-bert": ({"norm": "pre", "embedding_norm": False},),
    "esm": ({"norm": "pre", "positions": "rotary", "type_vocab_size": 0},),
    "roberta": ({"family": "roberta", "pad_token_id": 1, "init_cut": 0.0},),
    "modernbert": (
        {**MODERN, "init_outputs": "by_depth", "attention_window": 9, "global_every": 2},
        {**MODERN, "init_outputs": "by_depth", "linear_bias": False, "norm_bias": False},
        {**MODERN, "init_outputs": "by_depth", "embedding_dropout": 0.25, "gelu": "tanh"},
    ),
    "kdjax": (
        {"norm": "pre", "positions": "rotary", "rotary_base": 100.0},
        {"positions": "rotary", "rotary_base": 100.0},
        {"norm": "pre", "gelu": "tanh"},
        {"norm": "pre", "embedding_norm": False, "linear_bias": False},
        {"type_vocab_size": 0},
        {"embedding_norm": False, "init": "by_width", "init_std": 0.05},
    ),
}
CASES: list[tuple[str, dict[str, Any]]] = []
for saved_type, all_changes in SAVED_AS.items():
    CASES += [(saved_type, changes) for changes in all_changes]


def random_params(config: ModelConfig, *, mlm: bool = True) -> Any:
    rng = np.random.default_rng(0)
    shapes = abstract_params(config, mlm=mlm)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def change_settings(directory: Path, changes: dict[str, Any]) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("mlm", [True, False])
@pytest.mark.parametrize(("model_type", "changes"), CASES, ids=str)
def test_saved_model_reads_back_bit_for_bit(
    tmp_path: Path, config_with: ConfigWith, model_type: str, changes: dict[str, Any], mlm: bool
) -> None:
    model = Model(config_with(**changes), random_params(config_with(**changes), mlm=mlm))
    save_pretrained(model, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == model_type
    back = from_pretrained(tmp_path / "out")
    # The tree's structure too: a head that was not there must not appear.
    assert back.config == model.config
    assert jax.tree.structure(back.params) == jax.tree.structure(model.params)
    jax.tree.map(np.testing.assert_array_equal, back.params, model.params)


@pytest.mark.parametrize(
    ("model_type", "prefix", "head"),
    [
        # BertForSequenceClassification
        ("bert", "bert.", ("bert.pooler.dense", "classifier")),
        # BertForQuestionAnswering
        ("bert", "bert.", ("qa_outputs",)),
        # RobertaForTokenClassification
        ("roberta", "roberta.", ("classifier",)),
        # RobertaForSequenceClassification
        ("roberta", "roberta.", ("classifier.dense", "classifier.out_proj")),
        # RoFormerForMultipleChoice
        ("roformer", "roformer.", ("sequence_summary.summary", "classifier")),
        # DistilBertForSequenceClassification
        ("distilbert", "distilbert.", ("pre_classifier", "classifier")),
        # ModernBertForSequenceClassification, whose head has the names of the MLM head's transform
        ("modernbert", "model.", ("head.dense", "head.norm", "classifier")),
    ],
    ids=str,
)
def test_encoder_beside_a_head_for_a_task_reads_without_it(
    tmp_path: Path, model_type: str, prefix: str, head: tuple[str, ...]
) -> None:
    config = CONFIGS[model_type]
    model = Model(config, random_params(config, mlm=False))
    save_pretrained(model, tmp_path / "out")
    # As transformers stores it: the encoder behind its prefix, the head's modules beside it
    weights = tmp_path / "out" / "model.safetensors"
    tensors = {prefix + name: tensor for name, tensor in load_file(weights).items()}
    for module in head:
        tensors[f"{module}.weight"] = np.ones((3, config.width), np.float32)
        tensors[f"{module}.bias"] = np.ones(3, np.float32)
    save_file(tensors, weights, metadata={"format": "pt"})
    back = from_pretrained(tmp_path / "out")
    assert back.config == config
    assert jax.tree.structure(back.params) == jax.tree.structure(model.params)
    jax.tree.map(np.testing.assert_array_equal, back.params, model.params)


@pytest.mark.parametrize("name", CONFIGS)
def test_model_saved_as_a_class_of_transformers_has_its_features(name: str) -> None:
    """They were recorded by `python -m tests.golden.record_families`: transformers reads what was
    saved, in PyTorch."""
    config = CONFIGS[name]
    assert transformers_classes.to_json(config, mlm=True)["model_type"] == name.split(maxsplit=1)[0]
    layers = frozenset(range(1, config.layers + 1))
    request = FeatureRequest(layers, layers, layers, layers, hidden=layers | {0}, token_logits=True)
    if name not in record_families.WITH_FEATURES:
        request = FeatureRequest(token_logits=True)
    got = forward(config, params_of(config), BATCH, request)

    # Padded tokens have features of no meaning, in either library.
    valid = BATCH["segments"] > 0
    compared = set()
    with np.load(record_families.GOLDEN) as recorded:
        for entry in recorded.files:
            of_name, kind, *layer = entry.split("/")
            if of_name != name:
                continue
            want = recorded[entry]
            actual = got.token_logits if kind == "logits" else getattr(got, kind)[int(layer[0])]
            for row, size in enumerate(valid.sum(axis=1)):
                inside = (slice(size),) if want.ndim == 3 else (slice(None), slice(size))
                if kind == "scores":
                    inside = (slice(None), slice(size), slice(size))
                np.testing.assert_allclose(
                    np.asarray(actual)[row][inside],
                    want[row][inside],
                    rtol=0,
                    atol=1e-5 * np.abs(want).max(),
                    err_msg=entry,
                )
            compared.add(kind)
    assert "logits" in compared


def test_model_of_no_class_is_saved_with_dotted_names_and_every_setting(
    tmp_path: Path, config_with: ConfigWith
) -> None:
    custom = config_with(norm="pre", positions="rotary")
    save_pretrained(Model(custom, random_params(custom)), tmp_path / "out")
    # A path through the tree is a tensor's name.
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert {
        "embeddings.word.embedding",
        "layers.3.attention.query.kernel",
        "final_norm.scale",
        "mlm.bias",
    } < names
    # Every setting is written, so that a changed default cannot change a stored model.
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings == {"model_type": "kdjax", **vars(custom)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": 20}, "positions is 20, expected a str"),
        ({"rotary_base": "large"}, "rotary_base is 'large', expected a number"),
        ({"embedding_norm": 1}, "embedding_norm is 1, expected a bool"),
        ({"layers": 2.5}, "layers is 2.5, expected an integer"),
        ({"heads": 5}, "5 heads do not divide the width 24"),
        ({"number_of_layers": 3}, "unknown setting 'number_of_layers'"),
        ({"width": None}, "width is None, expected an integer"),
    ],
)
def test_config_of_our_own_type_that_cannot_be_used_is_refused(
    tmp_path: Path, config_with: ConfigWith, changes: dict[str, Any], words: str
) -> None:
    custom = config_with(norm="pre", positions="rotary")
    save_pretrained(Model(custom, random_params(custom)), tmp_path / "out")
    change_settings(tmp_path / "out", changes)
    with pytest.raises(InputError, match=words):
        from_pretrained(tmp_path / "out")


def test_model_saved_under_the_former_name_of_a_setting_is_read(
    tmp_path: Path, config_with: ConfigWith
) -> None:
    model = Model(config_with(norm="pre", positions="rotary"), None)
    model = model._replace(params=random_params(model.config))
    save_pretrained(model, tmp_path / "out")
    # The file as a version before the renaming wrote it.
    path = tmp_path / "out" / "config.json"
    path.write_text(path.read_text().replace('"type_vocab_size"', '"types"'))
    assert from_pretrained(tmp_path / "out").config == model.config


def test_demo_teacher_is_read_and_has_its_recipes_architecture() -> None:
    configs = Path(__file__).parents[3] / "configs"
    demo = recipes.load(configs / "demo.yaml")
    actual = from_pretrained(configs / "demo-teacher").config
    expected = zoo.resolve(demo.teacher.architecture)
    # What only training uses is not stored with a teacher of transformers' class.
    ignored = {"dropout": 0.0, "attention_dropout": 0.0, "init": "fixed", "init_std": 0.02}
    assert dataclasses.replace(actual, **ignored) == dataclasses.replace(expected, **ignored)


def test_config_of_our_own_type_without_a_setting_is_refused_by_its_name(
    tmp_path: Path, config_with: ConfigWith
) -> None:
    custom = config_with(norm="pre", positions="rotary")
    save_pretrained(Model(custom, random_params(custom)), tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    settings = json.loads(path.read_text())
    del settings["rotary_base"]
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"config\.json: rotary_base is missing"):
        from_pretrained(tmp_path / "out")


def test_position_table_of_another_padding_token_is_read_from_its_first_position(
    tmp_path: Path, config_with: ConfigWith
) -> None:
    """RoBERTa's own [PAD] is 1, so that its table begins with two rows of no position."""
    model = Model(config_with(norm="pre"), random_params(config_with(norm="pre")))
    save_pretrained(model, tmp_path / "out")
    change_settings(tmp_path / "out", {"pad_token_id": 1})
    back = from_pretrained(tmp_path / "out")
    # The config counts the rows behind the padding token's.
    assert back.config.max_positions == model.config.max_positions - 1
    written = model.params["embeddings"]["position"]["embedding"]
    np.testing.assert_array_equal(back.params["embeddings"]["position"]["embedding"], written[1:])


@pytest.mark.parametrize(
    ("model_type", "changes", "words"),
    [
        ("roformer", {"rotary_value": True}, "rotary_value is True, expected False"),
        ("roformer", {"embedding_size": 12}, "embedding_size is 12, expected the hidden_size, 24"),
        (
            "roberta-prelayernorm",
            {"hidden_act": "gelu_new"},
            "hidden_act is 'gelu_new', expected 'gelu'",
        ),
    ],
)
def test_config_of_a_class_with_what_this_package_lacks_is_refused(
    tmp_path: Path, config_with: ConfigWith, model_type: str, changes: dict[str, Any], words: str
) -> None:
    class_config = config_with(**SAVED_AS[model_type][0])
    save_pretrained(Model(class_config, random_params(class_config)), tmp_path / "out")
    change_settings(tmp_path / "out", changes)
    with pytest.raises(InputError, match=words):
        from_pretrained(tmp_path / "out")


def test_coordinates_that_turn_together_become_neighbours_and_back() -> None:
    # Halves of a head pair coordinate i with i + 3; neighbours pair 2i with 2i + 1.
    bias = np.arange(12)  # two heads of six
    in_pairs = neighbours_of_halves(bias, 2)
    assert in_pairs.tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    np.testing.assert_array_equal(halves_of_neighbours(in_pairs, 2), bias)
    # Kernels turn along their output axis.
    kernel = np.random.default_rng(0).normal(size=(5, 12))
    np.testing.assert_array_equal(neighbours_of_halves(kernel, 2)[:, 1], kernel[:, 3])


@pytest.mark.parametrize(
    "vocabulary",
    [
        {"model": {"vocab": {"<s>": 0, "<pad>": 3}}},
        {"model": {"vocab": [["<s>", 0.0], ["</s>", 0.0], ["a", -1.0], ["<pad>", 0.0]]}},
        {"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "[PAD]", "id": 3}]},
    ],
    ids=["by name", "Unigram", "added"],
)
def test_model_saved_with_a_tokenizer_counts_positions_from_its_padding_token(
    tmp_path: Path, config_with: ConfigWith, vocabulary: dict[str, Any]
) -> None:
    """transformers counts RoBERTa's positions from it, whatever the student was configured with."""
    config = config_with(family="roberta", pad_token_id=1)
    model = Model(config, random_params(config))
    tokenizer = tmp_path / "some.json"
    tokenizer.write_text(json.dumps(vocabulary), encoding="utf-8")
    save_pretrained(model, tmp_path / "out", tokenizer=tokenizer)
    settings = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert settings["pad_token_id"] == 3
    assert settings["max_position_embeddings"] == config.max_positions + 4
    back = from_pretrained(tmp_path / "out")
    assert back.config.max_positions == config.max_positions
    jax.tree.map(np.testing.assert_array_equal, back.params, model.params)
