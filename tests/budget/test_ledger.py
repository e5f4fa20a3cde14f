"""The budget is a promise: never over, under by less than one step, whatever its kind."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.budget.accounting import ACCOUNTS, CASES, EVERY_LEDGER, Budget, charged_flops
from kdjax.budget.ledger import Ledger, schedule_phases
from kdjax.budget.price import PARTS, Price
from kdjax.config import BudgetConfig
from kdjax.errors import InputError
from kdjax.storage.typed_json import from_plain, to_plain

POSITIONS = 96


def a_price(*parts: int) -> Price:
    return Price(sum(parts), *parts, jaxpr_matmul=0, jaxpr_elementwise=0)


PRICES = st.lists(st.integers(1, 10**16), min_size=5, max_size=5).map(lambda parts: a_price(*parts))


def charge(ledger: Ledger, price: Price, phase: int = 0) -> Ledger:
    return ledger.charge(phase, price, POSITIONS, tokens=7, unique=3, masked=2)


@given(PRICES, st.integers(1, 50), st.integers(0, 10**15), st.sampled_from(sorted(CASES)))
def test_ledger_spends_to_the_budget_and_never_over(
    price: Price, steps: int, rest: int, case: str
) -> None:
    a_step = charged_flops(price.parts(), case)
    budget = Budget("flops", steps * a_step + rest % a_step, teacher_case=case)
    (span,) = schedule_phases(budget, [(1.0, price)], POSITIONS)
    ledger = Ledger.open(budget)
    while ledger.affords(price, POSITIONS):
        ledger = charge(ledger, price)
    assert span.steps == ledger.steps == steps
    assert 0 <= ledger.remaining < a_step
    assert ledger.charged_flops == ledger.used == steps * a_step
    assert ledger.spent == {name: steps * price.parts().get(name, 0) for name in EVERY_LEDGER}
    assert (ledger.tokens, ledger.unique_tokens, ledger.masked_tokens) == (
        7 * steps,
        3 * steps,
        2 * steps,
    )
    assert ledger.padded_tokens == POSITIONS * steps
    with pytest.raises(ValueError, match="expected at most"):
        charge(ledger, price)


@given(PRICES, st.integers(1, 50), st.integers(0, POSITIONS - 1))
def test_budget_of_tokens_buys_every_arm_the_same_steps(
    price: Price, steps: int, rest: int
) -> None:
    budget = Budget("tokens", steps * POSITIONS + rest)
    (span,) = schedule_phases(budget, [(1.0, price)], POSITIONS)
    # FLOPs are on the account, and take no tokens
    ledger = Ledger.open(budget, upfront={"teacher_cache": 10**18})
    while ledger.affords(price, POSITIONS):
        ledger = charge(ledger, price)
    assert span.steps == ledger.steps == steps
    assert ledger.used == steps * POSITIONS <= budget.amount
    assert ledger.charged_flops == steps * price.total + 10**18


def test_budget_of_hours_counts_what_its_clock_names() -> None:
    budget = Budget("hours", 1.0, clock=("compute", "compile"))
    ledger = Ledger(
        budget, seconds={"compute": 1800.0, "compile": 900.0, "evaluation": 1e6}, step_seconds=890.0
    )
    assert ledger.used == 0.75
    assert ledger.share == 0.75
    price = a_price(1, 1, 1, 1, 1)
    assert ledger.affords(price, POSITIONS)
    assert not ledger.affords(price, POSITIONS, until=0.9)
    # As long as the last one: it would be over
    slower = Ledger(budget, seconds=ledger.seconds, step_seconds=910.0)
    assert not slower.affords(price, POSITIONS)


@given(
    st.lists(PRICES, min_size=2, max_size=4),
    st.integers(0, 10**17),
    st.integers(2000, 10**9),
    st.sampled_from(["inference", "both"]),
)
def test_phases_fill_the_budget_and_the_ledger_adds_up_across_them(
    prices: list[Price], upfront: int, large: int, case: str
) -> None:
    n = len(prices)
    largest = max(price.total for price in prices)
    before = {"teacher_cache": upfront // 3, "teacher_training": upfront - upfront // 3}
    # What was spent before is charged in some cases only.
    paid = charged_flops(before, case)
    budget = Budget("flops", n * upfront + n * 10 * largest + large, teacher_case=case)
    shares = [(k + 1) / n for k in range(n)]
    spans = schedule_phases(budget, list(zip(shares, prices, strict=True)), POSITIONS, before)
    ledger = Ledger.open(budget, n, before)
    assert ledger.charged_flops == paid
    for number, (span, share) in enumerate(zip(spans, shares, strict=True)):
        assert ledger.steps == span.first
        assert ledger.affords(span.price, POSITIONS, share)
        assert span.steps >= 1
        # A phase's steps at once: charging each takes too long.
        spent = {
            name: ledger.spent[name] + span.steps * span.price.parts().get(name, 0)
            for name in EVERY_LEDGER
        }
        phases = (*ledger.steps_by_phase[:number], span.steps, *ledger.steps_by_phase[number + 1 :])
        ledger = dataclasses.replace(ledger, spent=spent, steps_by_phase=phases)
        assert not ledger.affords(span.price, POSITIONS, share)
        assert ledger.steps == span.stop
        # Less than a step is left at the end of each phase.
        remainder = share * budget.amount - ledger.charged_flops
        assert remainder + 1 >= 0
        assert remainder - 1 < span.price.total
    assert (
        ledger.charged_flops == paid + sum(s.steps * s.price.total for s in spans) <= budget.amount
    )
    assert ledger.remaining < prices[-1].total
    # On the account, charged or not
    assert ledger.spent["teacher_training"] == before["teacher_training"]


def test_ledger_survives_json_with_integers_beyond_64_bits() -> None:
    budget = Budget("flops", 10**24, "both", ("compute",))
    opened = Ledger.open(
        budget, 2, {"teacher_cache": 10**21, "teacher_training": 10**20}, cache_bytes=10**15
    )
    ledger = charge(opened, a_price(10**22, 1, 2, 3, 4), phase=1)
    assert from_plain(Ledger, json.loads(json.dumps(to_plain(ledger))), "ledger") == ledger
    assert ledger.charged_flops == 10**22 + 10**21 + 10**20 + 10
    assert ledger.cache_bytes == 10**15
    assert ledger.steps_by_phase == (0, 1)


def test_budget_below_one_step_is_refused() -> None:
    price = a_price(1, 2, 3, 4, 5)
    with pytest.raises(
        InputError, match=r"budget.flops is 14, expected at least the price of one step, 15"
    ):
        schedule_phases(Budget.flops(14), [(1.0, price)], POSITIONS)
    with pytest.raises(InputError, match=r"one step of phase 1 .it ends at 0.5., 15"):
        schedule_phases(Budget.flops(20), [(0.5, price), (1.0, a_price(1, 1, 1, 1, 1))], POSITIONS)
    with pytest.raises(InputError, match=r"one step after 10 spent before, 15"):
        schedule_phases(Budget.flops(24), [(1.0, price)], POSITIONS, {"teacher_cache": 10})
    with pytest.raises(
        InputError, match=r"budget.tokens is 95, expected at least the price of one step, 96"
    ):
        schedule_phases(Budget("tokens", 95), [(1.0, price)], POSITIONS, setting="budget.tokens")


def test_four_cases_charge_what_their_name_says() -> None:
    spent = {account: 10**place for place, account in enumerate(ACCOUNTS)}
    assert list(spent) == [*PARTS, "teacher_cache", "teacher_training", "mlm_probe", "calibration"]
    assert charged_flops(spent, "nothing") == 10_011_011
    assert charged_flops(spent, "inference") == 110_111_111
    assert charged_flops(spent, "training") == 11_011_011
    assert charged_flops(spent, "both") == 111_111_111


def test_training_and_its_schedule_have_the_budget_without_a_charged_probe() -> None:
    ledger = Ledger.open(Budget.flops(100), upfront={"mlm_probe": 20})
    assert (ledger.used, ledger.training_amount, ledger.training_share) == (20, 80, 0)
    # Half of the 80 that training has.
    half = dataclasses.replace(ledger, spent={**ledger.spent, "student_forward": 40})
    assert (half.used, half.training_share) == (60, 0.5)
    tokens = Ledger.open(Budget("tokens", 100), upfront={"mlm_probe": 20})
    assert (tokens.used, tokens.training_amount, tokens.training_share) == (0, 100, 0)


def test_budget_of_no_kind_two_kinds_or_no_amount_is_refused() -> None:
    assert Budget.from_config(BudgetConfig(flops=1.5e12)) == Budget("flops", 1_500_000_000_000)
    assert Budget.from_config(BudgetConfig(hours=0.5, clock=("compute", "compile"))).clock == (
        "compute",
        "compile",
    )
    with pytest.raises(
        InputError, match=r"budget is not set, expected one of budget.flops, budget.tokens"
    ):
        Budget.from_config(BudgetConfig())
    with pytest.raises(
        InputError, match=r"budget.flops 1e.12 and budget.hours 2 are both set, expected one of"
    ):
        BudgetConfig(flops=1e12, hours=2)
    # No amount at all.
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"budget.tokens is .*, expected at least 0, at most"):
            BudgetConfig(tokens=bad)


def test_padded_tokens_are_positions_in_files() -> None:
    ledger = dataclasses.replace(Ledger.open(Budget("tokens", 96)), padded_tokens=24)
    stored = to_plain(ledger)
    assert stored["positions"] == 24
    assert "padded_tokens" not in stored
    assert from_plain(Ledger, stored, "ledger") == ledger
