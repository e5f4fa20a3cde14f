"""The published laws, against numbers that others worked out, and against their limits."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kdjax import forecast
from kdjax.errors import InputError

# Parameters, tokens, loss: a reader's table worked out from Table 6 of arXiv 2502.08606, to its
# three decimals. Two of its rows are off by one unit in the last, as are 1e-3 here.
SUPERVISED = [
    (120e6, 100e9, 2.596),
    (120e6, 300e9, 2.557),
    (120e6, 2e12, 2.520),
    (106e6, 2e12, 2.549),
    (315e6, 4e12, 2.311),
    (358e6, 18e12, 2.273),
    (1.0e9, 100e9, 2.240),
]

# Distilled less supervised loss of a student of 120M parameters, from equation 8 and Table 6, by
# teacher (parameters, tokens) and student tokens, by the same reader.
STUDENT_TOKENS = [30e9, 100e9, 300e9, 1e12]
ADVANTAGE = {
    (1.0e9, 100e9): [-0.073, -0.042, -0.026, -0.018],
    (315e6, 4e12): [-0.070, -0.042, -0.029, -0.020],
    (1.61e9, 11e12): [-0.074, -0.027, -0.003, 0.013],
}


@pytest.mark.parametrize("parameters, tokens, loss", SUPERVISED)
def test_supervised_loss_equals_published_table(
    parameters: float, tokens: float, loss: float
) -> None:
    assert float(forecast.supervised_loss(parameters, tokens)) == pytest.approx(loss, abs=1.1e-3)


@pytest.mark.parametrize("teacher", ADVANTAGE)
def test_distilled_gain_equals_published_law(teacher: tuple[float, float]) -> None:
    gain = forecast.distilled_loss(
        120e6, STUDENT_TOKENS, forecast.supervised_loss(*teacher)
    ) - forecast.supervised_loss(120e6, STUDENT_TOKENS)
    np.testing.assert_allclose(gain, ADVANTAGE[teacher], atol=6e-4)


def test_supervised_loss_falls_to_its_floor() -> None:
    sizes = np.geomspace(1e6, 1e14, 30)
    tokens = np.geomspace(1e6, 1e16, 40)
    losses = forecast.supervised_loss(sizes[:, None], tokens)
    assert losses.shape == (30, 40)
    assert (np.diff(losses, axis=0) < 0).all()
    assert (np.diff(losses, axis=1) < 0).all()
    assert float(forecast.supervised_loss(1e60, 1e60)) == pytest.approx(
        forecast.SUPERVISED.e, abs=1e-6
    )


def test_distilled_loss_approaches_teacher_from_above() -> None:
    teachers = np.linspace(1.8, 3.5, 50)
    assert (forecast.distilled_loss(1e8, 1e10, teachers) >= teachers).all()
    assert float(forecast.distilled_loss(1e30, 1e30, 2.5)) == pytest.approx(2.5, abs=1e-3)
    # A teacher far worse than the student alone would be is simply copied.
    assert float(forecast.distilled_loss(1e9, 1e12, 4.0)) == pytest.approx(4.0, abs=1e-9)


def test_too_good_a_teacher_makes_a_worse_student() -> None:
    teachers = np.linspace(1.3, 3.0, 200)
    students = forecast.distilled_loss(1e9, 1e11, teachers)
    best = int(students.argmin())
    assert 0 < best < len(teachers) - 1
    assert (np.diff(students[:best]) < 0).all()
    assert (np.diff(students[best:]) > 0).all()


def test_effective_tokens_give_the_papers_example() -> None:
    # Muennighoff et al., Appendix A: one unit, four repeats, R* = 3 is worth 3.21 units and never
    # 4.
    assert float(forecast.effective_tokens(5, 1, 3)) == pytest.approx(3.21, abs=5e-3)
    assert float(forecast.effective_tokens(101, 1, 3)) <= 4


def test_effective_tokens_discount_repeats() -> None:
    tokens = np.geomspace(1e6, 1e13, 200)
    worth = forecast.effective_tokens(tokens, 1e9)
    np.testing.assert_array_equal(worth[tokens <= 1e9], tokens[tokens <= 1e9])
    assert (worth <= tokens).all()
    assert (np.diff(worth[tokens < 1e11]) > 0).all()
    assert worth[-1] == pytest.approx(1e9 * (1 + 15.387756), rel=1e-9)
    # Up to four epochs repeats are almost as good as new text: the paper's main finding.
    assert float(forecast.effective_tokens(4e9, 1e9)) == pytest.approx(4e9, rel=0.08)
    np.testing.assert_array_equal(forecast.effective_tokens(tokens, math.inf), tokens)


def test_effective_tokens_broadcast_decay() -> None:
    decays = np.array([1.0, 5.0, 50.0])
    worth = forecast.effective_tokens(8.0, 2.0, decays)
    np.testing.assert_allclose(worth, 2 + 2 * decays * (1 - np.exp(-3 / decays)), rtol=1e-12)


def test_effective_parameters_discount_beyond_published_size() -> None:
    # Above 0.051 U parameters the first is discounted, below none is: equation 17 of Muennighoff et
    # al.
    assert float(forecast.effective_parameters(0.050e9, 1e9)) == 0.050e9
    assert float(forecast.effective_parameters(0.053e9, 1e9)) < 0.053e9
    assert float(forecast.effective_parameters(1e15, 1e9)) == pytest.approx(
        0.051e9 * 6.309743, rel=0.01
    )


def test_repeated_loss_equals_published_formula() -> None:
    def rounded(n: float, d: float, u: float) -> float:
        un = min(0.051 * u, n)
        size = un + 5.3 * un * (1 - math.exp(-(n / un - 1) / 5.3))
        data = u + 15.4 * u * (1 - math.exp(-(d / u - 1) / 15.4))
        return 521 / size**0.353 + 1488 / data**0.353 + 1.87

    for n, d, u in [
        (8.7e9, 178e9, 25e9),
        (2.8e9, 55e9, 55e9),
        (4.2e9, 84e9, 1.9e9),
        (1e8, 3e10, 1e8),
    ]:
        assert float(forecast.repeated_loss(n, d, u)) == pytest.approx(rounded(n, d, u), rel=3e-3)


def test_repeated_loss_ignores_unread_text() -> None:
    few = forecast.repeated_loss(1e6, 1e9, 1e9)
    assert float(forecast.repeated_loss(1e6, 1e9, 1e12)) == float(few)
    assert float(forecast.repeated_loss(1e6, 1e9, 1e8)) > float(few)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_counts_not_above_zero_are_refused(bad: float) -> None:
    asks: list[Callable[[], Any]] = [
        lambda: forecast.supervised_loss(bad, 1e9),
        lambda: forecast.distilled_loss(1e6, 1e9, bad),
        lambda: forecast.effective_tokens(1e9, bad),
        lambda: forecast.effective_tokens(1e9, 1e9, bad),
        lambda: forecast.effective_parameters(bad, 1e9),
        lambda: forecast.repeated_loss(1e6, bad, 1e9),
    ]
    for ask in asks:
        with pytest.raises(InputError, match="expected numbers above 0"):
            ask()


def test_every_law_names_its_source() -> None:
    for law in (forecast.SUPERVISED, forecast.DISTILLATION, forecast.REPEATED_DATA):
        assert re.search(r"arXiv \d{4}\.\d{5}", law.source.citation)
        assert "decoder" in law.source.fitted_on
        assert law.source.parameters[0] < law.source.parameters[1]
        assert law.source.tokens[0] < law.source.tokens[1]
