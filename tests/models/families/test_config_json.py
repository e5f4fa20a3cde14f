"""config.json of every family: what is read, in older and newer names, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from kdjax.config import ModelConfig, ModelSpec
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.models.families import transformers_classes

ROBERTA_BASE = {
    "model_type": "roberta",
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-05,
    "vocab_size": 50265,
    "pad_token_id": 1,
}
"""What roberta-base says that differs from the defaults."""
MODERNBERT_BASE = {
    "model_type": "modernbert",
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "local_attention": 128,
    "global_attn_every_n_layers": 3,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
}


def read(**settings: Any) -> ModelConfig:
    return transformers_classes.from_json(settings, "config.json")


def test_roberta_has_as_many_positions_as_rows_behind_the_padding_tokens() -> None:
    config = read(**ROBERTA_BASE)
    expected = zoo.resolve(ModelSpec(family="roberta", size="base", pad_token_id=1))
    assert config == expected
    assert config.max_positions == 512
    written = transformers_classes.to_json(config, mlm=True)
    assert {name: written[name] for name in ROBERTA_BASE} == ROBERTA_BASE


@pytest.mark.parametrize("model_type", ["xlm-roberta", "camembert"])
def test_relatives_of_roberta_are_read_and_written_under_their_own_type(model_type: str) -> None:
    config = read(**{**ROBERTA_BASE, "model_type": model_type})
    assert config.family == model_type
    assert transformers_classes.to_json(config, mlm=False)["model_type"] == model_type


def test_distilberts_own_names_are_read() -> None:
    config = read(
        model_type="distilbert",
        n_layers=3,
        dim=24,
        n_heads=2,
        hidden_dim=40,
        activation="gelu_new",
        dropout=0.2,
        sinusoidal_pos_embds=True,
    )
    expected = ModelSpec(
        family="distilbert", layers=3, width=24, heads=2, ffn=40, gelu="tanh", dropout=0.2
    )
    assert config == zoo.resolve(expected)


def test_modernbert_in_older_names_newer_ones_and_by_default_is_the_same() -> None:
    newer = {
        "model_type": "modernbert",
        "layer_types": ["full_attention" if n % 3 == 0 else "sliding_attention" for n in range(22)],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    }
    expected = zoo.resolve(
        ModelSpec(family="modernbert", size="modernbert-base", pad_token_id=50283)
    )
    assert read(**MODERNBERT_BASE) == expected
    assert read(**newer) == expected
    assert read(model_type="modernbert") == expected


def test_modernberts_windows_follow_the_list_of_layers_before_the_older_number() -> None:
    types = ["full_attention", "sliding_attention"]
    config = read(model_type="modernbert", num_hidden_layers=4, layer_types=types * 2)
    assert [config.is_local(n) for n in (1, 2, 3, 4)] == [False, True, False, True]
    assert [config.half_window(n) for n in (1, 2)] == [None, 64]
    # All alike: there is no window.
    config = read(model_type="modernbert", num_hidden_layers=2, layer_types=types[:1] * 2)
    assert (config.attention_window, config.global_every) == (0, 1)


def test_modernbert_rotary_bases_are_read_under_old_and_new_names() -> None:
    parameters = {"full_attention": {"rope_type": "default", "rope_theta": 8e4}}
    config = read(model_type="modernbert", rope_parameters=parameters, local_rope_theta=500.0)
    assert (config.rotary_base, config.local_rotary_base) == (8e4, 500.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer_types": ["sliding_attention"] * 22}, "expected every n-th layer"),
        ({"layer_types": "full_attention"}, "expected every n-th layer"),
        ({"mlp_bias": True}, "expected all of them true or all false"),
        ({"mlp_bias": 1}, "mlp_bias is 1, expected true or false"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling is .*, expected none"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
            "full_attention.rope_type is 'yarn', expected 'default'",
        ),
        ({"rope_parameters": [1]}, "rope_parameters is .*, expected an object"),
        ({"global_rope_theta": "large"}, "global_rope_theta is 'large', expected a number"),
        ({"decoder_bias": False}, "decoder_bias is False, expected True"),
        ({"hidden_activation": "silu"}, "hidden_activation is 'silu'"),
        ({"classifier_activation": "gelu_new"}, "expected the hidden_activation"),
        ({"local_attention": 0}, "attention_window is 0 and global_every 3"),
    ],
)
def test_modernbert_with_what_this_package_lacks_is_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read(model_type="modernbert", **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "roberta", "hidden_act": "gelu_new"}, "expected 'gelu'"),
        (
            {"model_type": "roberta", "type_vocab_size": 0},
            "type_vocab_size is 0, expected at least",
        ),
        ({"model_type": "roberta", "pad_token_id": -1}, "pad_token_id is -1"),
        ({"model_type": "esm"}, "position_embedding_type is 'absolute', expected 'rotary'"),
        (
            {"model_type": "esm", "position_embedding_type": "rotary", "token_dropout": True},
            "token_dropout is True, expected False",
        ),
        ({"model_type": "deberta-v2"}, "'modernbert'"),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder is True, expected False"),
    ],
)
def test_model_that_this_package_does_not_compute_is_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        transformers_classes.from_json(settings, "config.json")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [{"positions": "rotary", "rotary_base": 50.0}, {"norm": "pre", "gelu": "tanh"}],
    ids=str,
)
def test_settings_of_no_class_are_of_bert_alone(changes: dict[str, Any]) -> None:
    assert transformers_classes.class_of(zoo.resolve(ModelSpec(size="2x64", **changes))) is None
    with pytest.raises(InputError, match="as every roberta has it; family bert takes any"):
        zoo.resolve(ModelSpec(family="roberta", size="2x64", **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"norm": "pre", "positions": "rotary"},
            "the nearest, esm, has type_vocab_size 0 in place of 2; train a student with "
            "student.type_vocab_size: 0, or with student.family: modernbert",
        ),
        (
            {"norm": "pre", "gelu": "tanh"},
            "the nearest, roberta-prelayernorm, has gelu 'exact' in place of 'tanh'; train a "
            "student with student.gelu: 'exact'$",
        ),
    ],
)
def test_model_of_no_class_is_refused_for_transformers_with_the_nearest(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        transformers_classes.check_exportable(zoo.resolve(ModelSpec(size="2x64", **changes)))
    transformers_classes.check_exportable(zoo.resolve(ModelSpec(size="2x64")))
