"""Named sizes of models."""

from __future__ import annotations

import jax
import pytest

from kdjax.config import ModelConfig, ModelSpec
from kdjax.errors import InputError
from kdjax.models import abstract_params, count_params, init, zoo


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads", "ffn"),
    [
        ("tiny", 2, 128, 2, 512),
        ("mini", 4, 256, 4, 1024),
        ("small", 4, 512, 8, 2048),
        ("medium", 8, 512, 8, 2048),
        ("base", 12, 768, 12, 3072),
        ("large", 24, 1024, 16, 4096),
        ("minilm-l6", 6, 384, 12, 1536),
        ("6x768", 6, 768, 12, 3072),
        ("12x1024", 12, 1024, 16, 4096),
        ("10x64", 10, 64, 1, 256),
    ],
)
def test_get_of_a_named_size_gives_berts_options(
    name: str, layers: int, width: int, heads: int, ffn: int
) -> None:
    assert zoo.get(name) == ModelConfig(layers=layers, width=width, heads=heads, ffn=ffn)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tiny", 4.4), ("mini", 11.3), ("small", 29.1), ("medium", 41.7), ("base", 110.1)],
)
def test_parameters_of_named_sizes_are_those_of_turc_et_al(name: str, millions: float) -> None:
    # Table 1 of arXiv 1908.08962 (in millions) counts BERT's pooler too, and no MLM head.
    width = zoo.get(name).width
    pooler = width * width + width
    assert sum(count_params(abstract_params(zoo.get(name), mlm=False))) + pooler == pytest.approx(
        millions * 1e6, rel=0.02
    )


def test_resolve_changes_what_the_spec_sets_and_nothing_else() -> None:
    spec = ModelSpec(
        size="mini", layers=3, ffn=100, norm="pre", vocab_size=99, dropout=0.0, gelu="tanh"
    )
    assert zoo.resolve(spec) == ModelConfig(
        layers=3, width=256, heads=4, ffn=100, norm="pre", vocab_size=99, dropout=0.0, gelu="tanh"
    )


def test_size_with_heads_may_have_any_width_that_they_divide() -> None:
    resolved = zoo.resolve(ModelSpec(size="2x32", heads=2))
    assert resolved == ModelConfig(layers=2, width=32, heads=2, ffn=128)


def test_init_takes_a_name() -> None:
    shapes = jax.eval_shape(lambda: init("2x64", 0).params)
    assert shapes == abstract_params(zoo.get("2x64"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("meduim", r"'meduim'.*did you mean 'medium'"),
        ("6x700", "'6x700', expected a width that is a multiple of the head width 64, or heads"),
        ("0x64", "'0x64': expected LAYERSxWIDTH"),
        ("6x768x2", "expected LAYERSxWIDTH"),
        ("", "expected LAYERSxWIDTH.*valid: base"),
    ],
)
def test_get_of_an_unknown_size_is_refused_with_a_hint(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        zoo.get(name)


def test_resolve_of_sizes_that_do_not_fit_together_is_refused() -> None:
    with pytest.raises(InputError, match=r"^model: 12 heads do not divide the width 700"):
        zoo.resolve(ModelSpec(size="base", width=700))
    # Of a recipe's models the section is named.
    with pytest.raises(InputError, match=r"^student: 12 heads do not divide the width 700"):
        zoo.resolve(ModelSpec(size="base", width=700), "student")


def test_resolve_of_a_width_alone_gives_a_feed_forward_block_four_times_as_wide() -> None:
    # BERT's ratio holds unless the width of the block is set.
    assert zoo.resolve(ModelSpec(layers=2, width=32, heads=4)).ffn == 128
    assert zoo.resolve(ModelSpec(layers=2, width=32, heads=4, ffn=40)).ffn == 40
    assert zoo.resolve(ModelSpec(size="minilm-l6")).ffn == 1536


def test_family_sets_what_the_spec_leaves_open() -> None:
    config = zoo.resolve(ModelSpec(family="modernbert", size="6x384", dropout=0.2))
    assert (config.layers, config.heads, config.ffn) == (6, 6, 576)
    assert (config.rotary_base, config.local_rotary_base) == (160000.0, 10000.0)
    assert (config.dropout, config.attention_dropout, config.norm_eps) == (0.2, 0.0, 1e-5)
    assert [config.half_window(n) for n in range(1, 7)] == [None, 64, 64, None, 64, 64]


@pytest.mark.parametrize("changes", [{"attention_window": 0}, {"global_every": 1}], ids=str)
def test_without_a_window_every_layer_sees_all(changes: dict[str, int]) -> None:
    config = zoo.resolve(ModelSpec(family="modernbert", size="6x384", **changes))
    assert (config.attention_window, config.global_every) == (0, 1)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("modernbert-base", 149),
        ("modernbert-large", 395),
        ("ettin-17m", 17),
        ("ettin-32m", 32),
        ("ettin-68m", 68),
        ("ettin-150m", 149),
        ("ettin-400m", 395),
        ("ettin-1b", 1028),
    ],
)
def test_parameters_of_modernberts_sizes_are_those_of_their_papers(
    name: str, millions: float
) -> None:
    config = zoo.resolve(ModelSpec(family="modernbert", size=name))
    assert sum(count_params(abstract_params(config))) == pytest.approx(1e6 * millions, rel=0.01)
