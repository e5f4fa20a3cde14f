"""The budget is a promise: never over, under by less than one step."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.budget.ledger import ACCOUNTS, Ledger, lay_out
from kdjax.budget.price import PARTS, Price
from kdjax.errors import InputError


def a_price(*parts: int) -> Price:
    return Price(sum(parts), *parts, witness_matmul=0, witness_elementwise=0)


PRICES = st.lists(st.integers(1, 10**16), min_size=5, max_size=5).map(lambda parts: a_price(*parts))


@given(PRICES, st.integers(1, 50), st.integers(0, 10**15))
def test_spends_to_the_budget_and_never_over(price: Price, steps: int, rest: int) -> None:
    budget = steps * price.total + rest % price.total
    (stretch,) = lay_out(budget, [(1.0, price)])
    ledger = Ledger.open(budget)
    for _ in range(stretch.steps):
        ledger = ledger.charge(price, tokens=7, unique_tokens=3)
    assert stretch.steps == ledger.steps == steps
    assert 0 <= ledger.remaining < price.total
    assert ledger.total == steps * price.total
    assert ledger.spent == {**{name: steps * getattr(price, name) for name in PARTS}, "teacher_cache": 0}
    assert (ledger.tokens, ledger.unique_tokens) == (7 * steps, 3 * steps)
    with pytest.raises(ValueError, match="expected at most"):
        ledger.charge(price, tokens=7, unique_tokens=3)


@given(st.lists(PRICES, min_size=2, max_size=4), st.integers(0, 10**17), st.integers(2000, 10**9))
def test_phases_fill_the_budget_and_the_ledger_adds_up_across_them(
    prices: list[Price], upfront: int, large: int
) -> None:
    n, largest = len(prices), max(price.total for price in prices)
    budget = n * upfront + n * 10 * largest + large
    shares = [(k + 1) / n for k in range(n)]
    stretches = lay_out(budget, list(zip(shares, prices, strict=True)), upfront)
    ledger = Ledger.open(budget, upfront)
    for stretch, share in zip(stretches, shares, strict=True):
        assert ledger.steps == stretch.first
        assert ledger.total == pytest.approx(stretch.begin * budget, rel=1e-12)
        spent = stretch.steps * stretch.price.total
        parts = {name: ledger.spent[name] + stretch.steps * stretch.price.parts().get(name, 0) for name in ACCOUNTS}
        ledger = Ledger(budget, parts, ledger.steps + stretch.steps)
        assert ledger.steps == stretch.stop
        assert stretch.steps >= 1 and stretch.share * budget == pytest.approx(stretch.price.total)
        assert share * budget - ledger.total + 1 >= 0 and share * budget - ledger.total - 1 < stretch.price.total
        assert spent > 0
    assert ledger.total == upfront + sum(s.steps * s.price.total for s in stretches) <= budget
    assert ledger.remaining < prices[-1].total


def test_survives_json_with_integers_beyond_64_bits() -> None:
    ledger = Ledger.open(10**24, upfront=10**21, cache_bytes=10**15).charge(
        a_price(10**22, 1, 2, 3, 4), tokens=5, unique_tokens=5
    )
    assert Ledger.from_json(json.loads(json.dumps(ledger.to_json()))) == ledger
    assert ledger.total == 10**22 + 10**21 + 10
    assert ledger.cache_bytes == 10**15


def test_a_budget_below_one_step_is_refused() -> None:
    with pytest.raises(InputError, match=r"budget.flops is 14, expected at least the price of one step, 15"):
        lay_out(14, [(1.0, a_price(1, 2, 3, 4, 5))])
    with pytest.raises(InputError, match=r"one step of phase 1 .it ends at 0.5., 15"):
        lay_out(20, [(0.5, a_price(1, 2, 3, 4, 5)), (1.0, a_price(1, 1, 1, 1, 1))])
    with pytest.raises(InputError, match=r"one step after 10 spent before, 15"):
        lay_out(24, [(1.0, a_price(1, 2, 3, 4, 5))], upfront=10)
