"""The price over all sizes: XLA and the jaxpr count agree, and the matmuls are those counted by
hand, exactly."""

from __future__ import annotations

import dataclasses
import resource
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.budget.jaxpr_count import FlopCountError, JaxprCount
from kdjax.budget.price import PARTS, Count, Price, count_program_flops, reconcile
from kdjax.config import ArmConfig, HeadConfig, ModelConfig, ModelSpec, OptimizerConfig, TermConfig
from kdjax.models import zoo
from kdjax.objectives.presets import PRESETS
from kdjax.training.arm import resolve
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.phase_price import price
from kdjax.training.teacher.head import head_phase
from tests.budget import by_hand
from tests.budget.by_hand import QKV, SCORES, STUDENT, TEACHER, Batch, Model
from tests.support import tiny

Case = tuple[Model, Model, Batch]

several = settings(max_examples=4, derandomize=True, deadline=None)

SAME_WIDTH = {"distilbert", "paper_as_run_tinybert"}
OWN_HEADS = {"scratch", "logit", "minilm", "paper_as_run_scratch", "paper_as_run_logit"}
HELD_BY_OTHERS = {
    "logit",
    "minilm_v1",
    "attention_transfer",
    "attention_mse+hidden_mse",
    "paper_as_run_scratch",
    "paper_as_run_minilm",
}
"""Presets all of whose terms others have: `logit` is counted by hand at other sizes below, and
`minilm_v1` is a phase of `two_stage`."""
WHOLE = {
    "scratch",
    "logit",
    "distilbert",
    "two_stage",
    "paper_as_run_scratch",
    "paper_as_run_logit",
}
"""Both models run whole, or are another preset's phases: how many layers they have is in no other
formula."""


@st.composite
def cases(draw: st.DrawFn, *, same_width: bool = False, own_heads: bool = False) -> Case:
    """Draw a student, a teacher of the same vocabulary and a whole multiple of its layers, and a
    batch."""

    def number(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    layers = number(1, 2)
    vocabulary = number(2, 120)
    ffn = number(1, 32)
    student = Model(layers, number(1, 4), number(1, 8), ffn, vocabulary)
    # Some presets compare heads, for which both models need as many.
    heads = number(1, 4) if own_heads else student.heads
    head_width = number(1, 8)
    if same_width:
        head_width = student.head_width
    teacher = Model(layers * number(1, 2), heads, head_width, ffn + number(0, 16), vocabulary)
    length = number(2, 16)
    return student, teacher, Batch(number(1, 4), length, number(1, min(4, length)))


def unlike(*, layers: int = 2, same_width: bool = False, own_heads: bool = False) -> Case:
    """Make one case that stands for many: no two sizes are alike, so that none can stand in for
    another in a formula."""
    student = Model(layers, 3, 5, 19, 47)
    teacher = Model(2 * layers, 2 if own_heads else 3, 7, 29, 47)
    if same_width:
        teacher = teacher._replace(head_width=student.head_width)
    return student, teacher, Batch(4, 11, 2)


def config(model: Model) -> ModelConfig:
    return ModelConfig(
        layers=model.layers,
        width=model.width,
        heads=model.heads,
        ffn=model.ffn,
        vocab_size=model.vocabulary,
        max_positions=16,
        dropout=0.0,
        attention_dropout=0.0,
    )


def phases(
    arm: str, student: Model, teacher: Model, *terms: TermConfig, **optimizer: float
) -> tuple[Phase, ...]:
    adamw = OptimizerConfig(**optimizer)
    return resolve(arm, ArmConfig(terms=terms), config(student), config(teacher), adamw).phases


def prices(arm: str, case: Case, *terms: TermConfig, **optimizer: float) -> list[Price]:
    student, teacher, batch = case
    return [
        price(phase, BatchShape(*batch))
        for phase in phases(arm, student, teacher, *terms, **optimizer)
    ]


def check_sound(actual: Price) -> None:
    jaxpr_count = actual.jaxpr_matmul + actual.jaxpr_elementwise
    assert actual.jaxpr_matmul <= actual.total
    assert abs(actual.total - jaxpr_count) <= 0.01 * jaxpr_count
    assert sum(actual.parts().values()) == actual.total
    assert min(actual.parts().values()) >= 0


def test_every_preset_is_counted_by_hand() -> None:
    assert by_hand.PRESETS.keys() == PRESETS.keys()


def check_preset(preset: str, case: Case, clip: float) -> None:
    for actual, expected in zip(
        prices(preset, case, clip=clip), by_hand.PRESETS[preset], strict=True
    ):
        check_sound(actual)
        assert actual.jaxpr_matmul == expected(*case)
        assert (actual.teacher_forward > 0) == (expected is not by_hand.scratch)


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(preset, marks=pytest.mark.exhaustive) if preset in HELD_BY_OTHERS else preset
        for preset in by_hand.PRESETS
    ],
)
def test_matmuls_of_a_preset_are_those_by_hand(preset: str) -> None:
    layers = 1 if preset in WHOLE else 2
    case = unlike(layers=layers, same_width=preset in SAME_WIDTH, own_heads=preset in OWN_HEADS)
    check_preset(preset, case, clip=5.0 if preset in OWN_HEADS else 0.0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("preset", by_hand.PRESETS)
@several
@given(data=st.data())
def test_matmuls_of_a_preset_at_drawn_sizes_are_those_by_hand(
    preset: str, data: st.DataObject
) -> None:
    case = data.draw(cases(same_width=preset in SAME_WIDTH, own_heads=preset in OWN_HEADS))
    check_preset(preset, case, clip=data.draw(st.sampled_from([0.0, 1.0, 5.0])))


@pytest.mark.parametrize(
    "preset", [pytest.param("scratch", marks=pytest.mark.exhaustive), "minilm"]
)
def test_matmuls_of_rotary_models_are_those_by_hand_too(preset: str) -> None:
    student = Model(1, 2, 8, 16, 50)
    teacher = Model(2, 2, 8, 24, 50)
    batch = Batch(3, 12, 2)
    rotary_student = dataclasses.replace(config(student), positions="rotary")
    rotary_teacher = dataclasses.replace(config(teacher), positions="rotary")
    (phase,) = resolve(
        preset, ArmConfig(), rotary_student, rotary_teacher, OptimizerConfig()
    ).phases
    actual = price(phase, BatchShape(*batch))
    check_sound(actual)
    assert actual.jaxpr_matmul == by_hand.PRESETS[preset][0](student, teacher, batch)


@pytest.mark.parametrize("preset", ["scratch", "minilm"])
def test_matmuls_of_families_are_those_by_hand(preset: str) -> None:
    """A ModernBERT learns from a RoBERTa: a gate is a matmul more, and a window none less, as
    scores are computed whole and masked."""
    student = Model(2, 2, 8, 16, 50, gated=True)
    teacher = Model(1, 2, 8, 24, 50)
    batch = Batch(3, 12, 2)
    modern = sized(student, family="modernbert", attention_window=4, global_every=2)
    (phase,) = resolve(
        preset, ArmConfig(), modern, sized(teacher, family="roberta"), OptimizerConfig()
    ).phases
    actual = price(phase, BatchShape(*batch))
    check_sound(actual)
    assert actual.jaxpr_matmul == by_hand.PRESETS[preset][0](student, teacher, batch)


def sized(model: Model, **settings: Any) -> ModelConfig:
    """Return a model of a family in a size by hand."""
    return zoo.resolve(
        ModelSpec(
            layers=model.layers,
            width=model.width,
            heads=model.heads,
            ffn=model.ffn,
            vocab_size=model.vocabulary,
            **settings,
        )
    )


def term(name: str, weight: float = 1.0, **options: object) -> TermConfig:
    return TermConfig(name, weight, options=options)


def attention_of_one_pair(
    case: Case, student_layer: int, teacher_layer: int
) -> tuple[list[TermConfig], int]:
    """Return terms and matmuls of one pair's attention: layers above the pair are not run, nor the
    rest of its own."""
    student, teacher, batch = case
    matmuls = by_hand.up_to(student, batch, student_layer, SCORES, STUDENT) + by_hand.up_to(
        teacher, batch, teacher_layer, SCORES, TEACHER
    )
    return [term("attention_mse", layers=[[student_layer, teacher_layer]])], matmuls


def hidden_of_one_pair(
    case: Case, student_layer: int, teacher_layer: int
) -> tuple[list[TermConfig], int]:
    """Return terms and matmuls of one pair's hidden states: the embedding output where `own` is 1,
    so that no layer of the student runs at all."""
    student, teacher, batch = case
    matmuls = by_hand.encoder(student, batch, student_layer - 1, (), STUDENT) + by_hand.encoder(
        teacher, batch, teacher_layer, (), TEACHER
    )
    return [
        term("hidden_mse", layers=[[student_layer - 1, teacher_layer]])
    ], matmuls + by_hand.projection(student, teacher, batch, 1)


def values_alone(
    case: Case, student_layer: int, teacher_layer: int
) -> tuple[list[TermConfig], int]:
    """Return terms and matmuls of relations without queries and keys, to a layer of the teacher's
    that is not its last."""
    student, teacher, batch = case
    matmuls = by_hand.up_to(student, batch, student.layers, ("value",), STUDENT)
    matmuls += by_hand.up_to(teacher, batch, teacher_layer, ("value",), TEACHER)
    matmuls += by_hand.relation(student, teacher, batch, 1)
    return [term("relation", query=0, key=0, teacher_layer=teacher_layer)], matmuls


def minilm_v1_to_a_middle_layer(
    case: Case, student_layer: int, teacher_layer: int
) -> tuple[list[TermConfig], int]:
    student, teacher, batch = case
    both = (*QKV, "scores")
    matmuls = by_hand.up_to(student, batch, student.layers, both, STUDENT)
    matmuls += by_hand.up_to(teacher, batch, teacher_layer, both, TEACHER)
    matmuls += by_hand.relation(student, teacher, batch, student.heads)
    return [
        term("attention_kl", teacher_layer=teacher_layer),
        term("value_relation", teacher_layer=teacher_layer),
    ], matmuls


def lowest_layers(
    case: Case, student_layer: int, teacher_layer: int
) -> tuple[list[TermConfig], int]:
    """Return terms and matmuls of TinyBERT's bottom map: the teacher stops after as many layers as
    the student has."""
    student, teacher, batch = case
    matmuls = by_hand.everything(student, batch, STUDENT) + by_hand.encoder(
        teacher, batch, student.layers, (), TEACHER
    )
    matmuls += by_hand.projection(student, teacher, batch, student.layers + 1)
    return [term("attention_mse", layers="lower"), term("hidden_mse", layers="lower")], matmuls


def joined_layers_and_first_tokens(
    case: Case, student_layer: int, teacher_layer: int
) -> tuple[list[TermConfig], int]:
    """Return terms and matmuls of two projections; that of the first tokens is there only where the
    widths differ, and then at all positions."""
    student, teacher, batch = case
    # All layers side by side, as one wide one.
    widths = student.layers * student.width, teacher.layers * teacher.width
    matmuls = by_hand.both_encoders(*case) + by_hand.matmul(batch.tokens, *widths, STUDENT)
    matmuls += by_hand.projection(student, teacher, batch, int(student.width != teacher.width))
    return [term("hidden_concat"), term("hidden_cls")], matmuls


def attention_besides_logits(
    case: Case, student_layer: int, teacher_layer: int
) -> tuple[list[TermConfig], int]:
    """Return terms and matmuls of logits and attention: scores come on the way to the logits and
    cost no matmul more."""
    return [term("logit", temperature=2.0), term("pearson", 0.5)], by_hand.logit(*case)


OBJECTIVES = [
    attention_of_one_pair,
    hidden_of_one_pair,
    values_alone,
    minilm_v1_to_a_middle_layer,
    lowest_layers,
    joined_layers_and_first_tokens,
    attention_besides_logits,
]
Objective = Callable[[Case, int, int], tuple[list[TermConfig], int]]


def check_objective(
    objective: Objective, case: Case, student_layer: int, teacher_layer: int
) -> None:
    terms, matmuls = objective(case, student_layer, teacher_layer)
    (actual,) = prices("mine", case, *terms)
    check_sound(actual)
    assert actual.jaxpr_matmul == matmuls


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_matmuls_of_an_objective_are_those_by_hand(objective: Objective) -> None:
    """The pair is the lower of two layers and the third of four, so that there are layers above
    that must not run."""
    check_objective(objective, unlike(), 1, 3)


def test_first_tokens_of_equal_width_are_compared_without_a_projection() -> None:
    check_objective(joined_layers_and_first_tokens, unlike(layers=1, same_width=True), 1, 1)


@pytest.mark.exhaustive
@pytest.mark.parametrize("objective", OBJECTIVES)
@several
@given(data=st.data())
def test_matmuls_of_an_objective_at_drawn_sizes_are_those_by_hand(
    objective: Objective, data: st.DataObject
) -> None:
    case = data.draw(cases())
    student_layer = data.draw(st.integers(1, case[0].layers))
    teacher_layer = data.draw(st.integers(1, case[1].layers))
    check_objective(objective, case, student_layer, teacher_layer)


def test_fitting_a_head_has_no_gradient_below_it() -> None:
    model = Model(2, 2, 6, 20, 70)
    batch = Batch(3, 10, 3)
    actual = price(head_phase(config(model), HeadConfig(budget=1e9)), BatchShape(*batch))
    check_sound(actual)
    assert actual.jaxpr_matmul == by_hand.head_on_frozen_encoder(model, batch)


@pytest.mark.exhaustive
@pytest.mark.parametrize("preset", ["logit", "minilm_v1"])
def test_price_is_linear_in_the_batch_but_for_the_update(preset: str) -> None:
    student, teacher, batch = unlike(layers=1)
    double = batch._replace(sequences=2 * batch.sequences)
    triple = batch._replace(sequences=3 * batch.sequences)
    once = prices(preset, (student, teacher, batch))[0]
    twice = prices(preset, (student, teacher, double))[0]
    thrice = prices(preset, (student, teacher, triple))[0]
    # Matmuls are exactly linear.
    assert [twice.jaxpr_matmul, thrice.jaxpr_matmul] == [
        2 * once.jaxpr_matmul,
        3 * once.jaxpr_matmul,
    ]
    # From one batch to two, and from two to three: the same.
    more = twice.total - once.total
    again = thrice.total - twice.total
    assert more == pytest.approx(again, rel=1e-4)
    assert 0 < once.optimizer == pytest.approx(once.total - more, rel=0.02)
    assert once.optimizer == pytest.approx(thrice.optimizer, rel=0.005)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "size",
    [
        *("heads", "vocabulary", "slots"),
        *("layers", "head_width", "ffn", "sequences", "length"),
    ],
)
def test_price_grows_with_every_size(size: str) -> None:
    student = Model(1, 2, 4, 12, 30)
    teacher = Model(2, 2, 4, 12, 30)
    batch = Batch(2, 6, 2)
    larger = student
    more = batch
    if size in Batch._fields:
        more = batch._replace(**{size: getattr(batch, size) + 1})
    else:
        larger = student._replace(**{size: getattr(student, size) + 1})
    before = prices("scratch", (student, teacher, batch))[0]
    after = prices("scratch", (larger, teacher, more))[0]
    assert after.total > before.total


def test_more_heads_of_the_same_width_in_all_cost_no_matmul() -> None:
    teacher = Model(1, 1, 8, 8, 30)
    batch = Batch(2, 6, 2)
    one_head = prices("scratch", (Model(1, 1, 8, 12, 30), teacher, batch))[0]
    four = prices("scratch", (Model(1, 4, 2, 12, 30), teacher, batch))[0]
    assert one_head.jaxpr_matmul == four.jaxpr_matmul
    assert one_head.jaxpr_elementwise < four.jaxpr_elementwise  # a softmax for each head


def test_packing_and_padding_do_not_change_the_price() -> None:
    """Shapes know nothing of them: a batch of several segments a sequence, and padding, costs what
    a full one does."""
    names = [field.name for field in dataclasses.fields(BatchShape)]
    assert names == ["batch_size", "seq_len", "max_predictions"]
    phase = tiny.phase("minilm_v1")
    packed = tiny.batch()
    assert packed["segments"].max() > 1
    assert not packed["valid"].all()
    # The same batch, of whole sequences.
    whole = {
        **packed,
        "segments": np.ones_like(packed["segments"]),
        "valid": np.ones_like(packed["valid"]),
    }
    params = phase.abstract_params()
    teacher = phase.abstract_teacher()
    loss_fn = phase.loss_fn()
    counts = [count_program_flops(loss_fn, params, teacher, batch) for batch in (packed, whole)]
    assert (
        counts[0]
        == counts[1]
        == count_program_flops(loss_fn, params, teacher, tiny.SHAPE.abstract())
    )
    assert counts[0].flops > 0


@pytest.mark.parametrize(
    "program",
    [
        lambda x, i: jnp.take(x, i, axis=0),
        lambda x, i: x.at[i, i].get(mode="fill"),
        lambda x, i: x.at[i].get(mode="promise_in_bounds") + 1,
        lambda x, i: x**3 + x**-2 + x**7 + x**1,
        lambda x, i: 1.0 * x + jnp.square(jnp.zeros_like(x)) + x * x,
        lambda x, i: optax.tree.norm({"x": x}) + jnp.max(x),
    ],
    ids=["look-up", "two coordinates", "unchecked look-up", "powers", "nothing changed", "norm"],
)
def test_xla_and_jaxpr_count_agree_on_elementwise_work(
    program: Callable[..., jax.Array],
) -> None:
    x = jax.ShapeDtypeStruct((11, 12), jnp.float32)
    i = jax.ShapeDtypeStruct((7, 3), jnp.int32)
    count = count_program_flops(program, x, i)
    assert count.flops > 0
    assert abs(count.flops - count.jaxpr_count.total) <= 3  # a scalar here or there


def test_flop_count_error_says_what_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = dict.fromkeys(PARTS, 200)
    with pytest.raises(
        FlopCountError, match="expected no less than the matmuls, and the sum within 1%"
    ):
        reconcile(Count(1000, JaxprCount(1020, 10)), **parts)
    with pytest.raises(FlopCountError, match="expected the whole's 2000 within 1%"):
        reconcile(Count(2000, JaxprCount(1990, 10)), **parts)
    for useless in (None, 0.0, -1.0, float("nan")):
        monkeypatch.setattr(
            jax.stages.Lowered, "cost_analysis", lambda self, flops=useless: {"flops": flops}
        )
        with pytest.raises(
            FlopCountError, match=f"gives {useless} FLOPs .*, expected about the jaxpr count's 250"
        ):
            count_program_flops(lambda x: x @ x, jax.ShapeDtypeStruct((5, 5), jnp.float32))


def test_pricing_models_as_wide_as_bert_large_takes_no_weights() -> None:
    """Weights of 254 million parameters, most of them the words' tables, would be 1 GB; a layer of
    each model is enough."""
    unit = 1 if sys.platform == "darwin" else 1024

    def resident() -> int:
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def held() -> int:
        return sum(array.nbytes for array in jax.live_arrays())

    before = resident()
    arrays = held()
    large = dataclasses.replace(zoo.get("large"), layers=1, vocab_size=110_000)
    (phase,) = resolve("logit", ArmConfig(), large, large, OptimizerConfig()).phases
    actual = price(phase, BatchShape(batch_size=256, seq_len=128, max_predictions=20))
    # No weights are made, and little memory is taken on the way.
    assert held() - arrays < 2**20
    assert resident() - before < 2**29
    model = Model(1, 16, 64, 4096, 110_000)
    assert actual.jaxpr_matmul == by_hand.logit(model, model, Batch(256, 128, 20))
