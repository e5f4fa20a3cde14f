"""The budget is a promise: never over, under by less than one step."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.budget.ledger import Ledger, affordable_steps
from kdjax.budget.price import PARTS, Price
from kdjax.errors import InputError


def a_price(*parts: int) -> Price:
    return Price(sum(parts), *parts, witness_matmul=0, witness_elementwise=0)


PRICES = st.lists(st.integers(1, 10**16), min_size=5, max_size=5).map(lambda parts: a_price(*parts))


@given(PRICES, st.integers(1, 50), st.integers(0, 10**15))
def test_spends_to_the_budget_and_never_over(price: Price, steps: int, rest: int) -> None:
    budget = steps * price.total + rest % price.total
    ledger, done = Ledger(budget), 0
    while ledger.affords(price):
        ledger, done = ledger.charge(price, tokens=7, unique_tokens=3), done + 1
    assert done == affordable_steps(budget, price) == steps
    assert 0 <= ledger.remaining < price.total
    assert ledger.total == steps * price.total
    assert ledger.spent == {name: steps * getattr(price, name) for name in PARTS}
    assert (ledger.steps, ledger.tokens, ledger.unique_tokens) == (steps, 7 * steps, 3 * steps)


def test_survives_json_with_integers_beyond_64_bits() -> None:
    ledger = Ledger(10**24).charge(a_price(10**22, 1, 2, 3, 4), tokens=5, unique_tokens=5)
    assert Ledger.from_json(json.loads(json.dumps(ledger.to_json()))) == ledger


def test_a_budget_below_one_step_is_refused() -> None:
    with pytest.raises(InputError, match="at least the price of one step"):
        affordable_steps(14, a_price(1, 2, 3, 4, 5))
