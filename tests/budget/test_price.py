"""The FLOP counter: XLA's count, the jaxpr count's, and counts made by hand must agree."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from kdjax.budget.jaxpr_count import FlopCountError, JaxprCount, count_jaxpr
from kdjax.budget.price import PARTS, Count, Price, count_program_flops, reconcile
from kdjax.config import ArmConfig, ModelConfig, OptimizerConfig
from kdjax.models import zoo
from kdjax.models.ops import cross_entropy
from kdjax.models.ops.dispatch import trace_reference
from kdjax.training.arm import resolve
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.phase_price import price
from tests.support import tiny

PAPER = BatchShape(batch_size=4, seq_len=128, max_predictions=20)


def only_phase(name: str, student: ModelConfig, teacher: ModelConfig) -> Phase:
    (phase,) = resolve(name, ArmConfig(), student, teacher, OptimizerConfig()).phases
    return phase


def paper_price(name: str) -> Price:
    """Price an arm at the paper's sizes but for the layers, which are alike: 2 and 4."""
    student = dataclasses.replace(zoo.get("6x768"), layers=2)
    return price(only_phase(name, student, dataclasses.replace(zoo.get("base"), layers=4)), PAPER)


def encoder_matmuls(layers: int, width: int, ffn: int) -> int:
    """Count forward matmul FLOPs of an encoder, written out; 2 FLOPs a multiply-add."""
    tokens = PAPER.batch_size * PAPER.seq_len
    projections = 4 * 2 * width * width  # query, key, value, output
    attention = 2 * 2 * PAPER.seq_len * width  # scores, and their mixing of the values
    feed_forward = 2 * 2 * width * ffn
    return layers * tokens * (projections + attention + feed_forward)


def head_matmuls(width: int, vocabulary: int = 30522) -> int:
    """Count forward matmul FLOPs of an MLM head on the masked slots."""
    return PAPER.batch_size * PAPER.max_predictions * (2 * width * width + 2 * width * vocabulary)


def test_scratch_at_the_papers_widths_is_three_forwards_by_hand() -> None:
    actual = paper_price("scratch")
    # One forward pass, and a backward pass of twice as much.
    by_hand = 3 * (encoder_matmuls(2, 768, 3072) + head_matmuls(768))
    assert actual.jaxpr_matmul == by_hand
    assert by_hand < actual.total < 1.03 * by_hand
    assert actual.teacher_forward == 0


def test_logit_at_the_papers_widths_adds_one_teacher_forward_by_hand() -> None:
    actual = paper_price("logit")
    student = 3 * (encoder_matmuls(2, 768, 3072) + head_matmuls(768))
    # The teacher goes forward only.
    teacher = encoder_matmuls(4, 768, 3072) + head_matmuls(768)
    assert actual.jaxpr_matmul == student + teacher
    assert student + teacher < actual.total < 1.03 * (student + teacher)
    assert actual.teacher_forward == pytest.approx(teacher, rel=0.02)
    assert actual.student_forward + actual.student_backward == pytest.approx(student, rel=0.02)


def test_parts_add_up_to_the_total_exactly() -> None:
    for name in ("scratch", "logit", "tinybert", "minilm"):
        actual = price(tiny.phase(name), tiny.SHAPE)
        assert sum(actual.parts().values()) == actual.total
        assert min(actual.parts().values()) >= 0


GOLDEN = {
    "scratch": (3_486_793, (1_143_552, 2_233_404, 0, 7_042, 102_795)),
    "logit": (7_982_598, (1_143_552, 2_233_403, 4_468_993, 33_855, 102_795)),
    "tinybert": (8_471_835, (1_083_744, 2_123_024, 4_370_785, 790_469, 103_813)),
    "minilm": (6_918_256, (704_352, 1_374_160, 3_624_289, 1_142_222, 73_233)),
}
"""Of the tiny models, in total and by part: since before there was an optimized form; the same on
JAX 0.10 and 0.12."""


@pytest.mark.parametrize("name", GOLDEN)
def test_price_equals_recorded_value(name: str) -> None:
    """Runs of other versions have it on their ledgers. Whoever changes it says so in the
    changelog."""
    actual = price(tiny.phase(name), tiny.SHAPE)
    assert (actual.total, tuple(actual.parts().values())) == GOLDEN[name]


@pytest.mark.parametrize("optimized_first", [True, False])
def test_measure_counts_the_reference_form_also_of_traced_functions(
    optimized_first: bool,
) -> None:
    """JAX keeps what it has traced, of functions that are compiled inside others too."""

    @jax.jit
    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return cross_entropy(logits, labels).sum()

    def program(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return jax.grad(loss)(logits, labels)

    shapes = jax.ShapeDtypeStruct((5, 30), jnp.float32), jax.ShapeDtypeStruct((5,), jnp.int32)

    def optimized() -> JaxprCount:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return count_jaxpr(jax.jit(program).trace(*shapes).jaxpr.jaxpr)

    before = optimized() if optimized_first else None
    counted = count_program_flops(program, *shapes).jaxpr_count
    with trace_reference():
        assert counted == count_jaxpr(jax.make_jaxpr(program)(*shapes).jaxpr)
    assert counted != optimized()
    assert before in (None, optimized())


def test_arm_without_logits_does_not_pay_for_the_mlm_head() -> None:
    narrow = tiny.STUDENT
    # An MLM head would take ten times as much with this vocabulary.
    wide = dataclasses.replace(tiny.STUDENT, vocab_size=10 * tiny.VOCABULARY)
    teacher = dataclasses.replace(tiny.TEACHER, vocab_size=10 * tiny.VOCABULARY)
    small = price(only_phase("minilm", narrow, tiny.TEACHER), tiny.SHAPE)
    large = price(only_phase("minilm", wide, teacher), tiny.SHAPE)
    assert large.student_forward == pytest.approx(small.student_forward, rel=0.002)
    assert large.teacher_forward == pytest.approx(small.teacher_forward, rel=0.002)
    # The embedding's own gradient grows, nothing else
    assert large.student_backward < 1.1 * small.student_backward


def test_price_grows_with_the_batch_but_for_the_update() -> None:
    once = price(tiny.phase("logit"), dataclasses.replace(tiny.SHAPE, batch_size=8))
    twice = price(tiny.phase("logit"), dataclasses.replace(tiny.SHAPE, batch_size=16))
    assert twice.optimizer == pytest.approx(once.optimizer, rel=0.02)
    assert twice.teacher_forward == pytest.approx(2 * once.teacher_forward, rel=1e-3)
    assert twice.student_forward == pytest.approx(2 * once.student_forward, rel=1e-3)


def test_dropout_costs_elementwise_work_and_no_random_bits() -> None:
    dropping = dataclasses.replace(tiny.STUDENT, dropout=0.1, attention_dropout=0.1)
    without = price(tiny.phase(), tiny.SHAPE)
    with_dropout = price(tiny.phase(student=dropping), tiny.SHAPE)
    assert with_dropout.jaxpr_matmul == without.jaxpr_matmul
    assert without.total < with_dropout.total < 1.25 * without.total


def test_scan_unrolled_whole_is_counted_by_its_trip_count() -> None:
    def program(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (carry @ carry, None), x, length=7, unroll=True)[0]

    traced = jax.make_jaxpr(program)(jnp.zeros((5, 5)))
    assert count_jaxpr(traced.jaxpr) == JaxprCount(matmul=7 * 2 * 5**3, elementwise=0)
    assert (
        count_program_flops(program, jax.ShapeDtypeStruct((5, 5), jnp.float32)).flops
        == 7 * 2 * 5**3
    )


def test_dead_code_is_counted_by_neither_count() -> None:
    def program(x: jax.Array) -> jax.Array:
        _ = (x @ x).sum()
        return x * 2

    traced = jax.make_jaxpr(program)(jnp.zeros((50, 50)))
    assert count_jaxpr(traced.jaxpr) == JaxprCount(matmul=0, elementwise=50**2)
    assert count_program_flops(program, jax.ShapeDtypeStruct((50, 50), jnp.float32)).flops == 50**2


def test_small_model_with_a_large_vocabulary_is_priced() -> None:
    """The vocabulary's elementwise work is then no small part."""
    student = dataclasses.replace(tiny.STUDENT, vocab_size=20_000)
    assert price(only_phase("scratch", student, tiny.TEACHER), tiny.SHAPE).total > 0


def settled(count: Count) -> Price:
    return reconcile(count, **{part: count.flops // 5 for part in PARTS})


def test_scan_is_refused_because_xla_counts_its_body_once() -> None:
    def program(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (carry @ carry, None), x, length=7)[0]

    with pytest.raises(FlopCountError, match="holds `scan`, whose FLOPs XLA does not count truly"):
        count_program_flops(program, jax.ShapeDtypeStruct((50, 50), jnp.float32))


def test_while_loop_and_a_branch_are_refused() -> None:
    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda c: c.sum() < 3, lambda c: c @ c, x)

    def branch(x: jax.Array) -> jax.Array:
        return jax.lax.cond(x.sum() > 0, lambda c: c @ c, lambda c: c, x)

    for program in (loop, branch):
        with pytest.raises(FlopCountError, match="does not count truly"):
            count_program_flops(program, jax.ShapeDtypeStruct((5, 5), jnp.float32))


@pytest.mark.parametrize("count", [None, 0.0, -1.0, float("nan")])
def test_unusable_count_is_refused(monkeypatch: pytest.MonkeyPatch, count: float | None) -> None:
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: {"flops": count})
    with pytest.raises(FlopCountError, match="cost analysis gives"):
        count_program_flops(lambda x: x @ x, jax.ShapeDtypeStruct((5, 5), jnp.float32))


@pytest.mark.parametrize("factor", [0.9, 0.97, 1.03, 1.5])
def test_xla_count_that_disagrees_with_jaxpr_count_is_refused(factor: float) -> None:
    # This one agrees.
    settled(Count(10_100, JaxprCount(10_000, 100)))
    with pytest.raises(FlopCountError, match="the jaxpr count"):
        settled(Count(round(factor * 10_100), JaxprCount(10_000, 100)))


def test_parts_that_miss_the_whole_are_refused() -> None:
    parts = dict.fromkeys(PARTS, 10)
    with pytest.raises(FlopCountError, match="add up"):
        reconcile(Count(60, JaxprCount(50, 10)), **parts)


def test_padded_vocabulary_of_the_teacher_costs_its_heads_further_rows_alone() -> None:
    # Both distributions are over the entries that both have.
    shape = tiny.SHAPE
    prices = []
    for entries in (tiny.VOCABULARY, 56):
        teacher = dataclasses.replace(tiny.TEACHER, vocab_size=entries)
        prices.append(price(tiny.phase("logit", teacher=teacher), shape))
    rows = shape.batch_size * shape.max_predictions * (56 - tiny.VOCABULARY)
    matmul = rows * 2 * tiny.TEACHER.width
    assert prices[1].jaxpr_matmul - prices[0].jaxpr_matmul == matmul
    # Besides, a bias for each.
    assert prices[1].total - prices[0].total == matmul + rows
