"""Published scaling laws, with the coefficients their authors fitted to decoder language models.

They are a prior and no more: next-token losses of decoders on C4, three orders of magnitude above a
small masked language model. Differences and shapes may carry over; values do not. Losses are in
nats per token, and Busbridge et al. count parameters without embeddings.

Sources: Busbridge, Shidani, Weers, Ramapuram, Littwin and Webb (2025), Distillation Scaling Laws,
arXiv 2502.08606; Muennighoff, Rush, Barak, Le Scao, Piktus, Tazi, Pyysalo, Wolf and Raffel (2023),
Scaling Data-Constrained Language Models, arXiv 2305.16264.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdjax.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Publication:
    """Where a law's coefficients come from; outside the ranges of the fit the law extrapolates.

    Attributes:
        citation: paper and table or equation.
        fitted_on: models and corpus that the law was fitted on.
        parameters: smallest and largest N of the fit.
        tokens: smallest and largest D of the fit.
    """

    citation: str
    fitted_on: str
    parameters: tuple[float, float]
    tokens: tuple[float, float]


@dataclass(frozen=True)
class SupervisedLaw:
    """Loss of training on text alone: L(N, D) = e + (a / N**alpha + b / D**beta)**gamma."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float
    gamma: float
    source: Publication


@dataclass(frozen=True)
class DistillationLaw:
    """Loss of distilling from a teacher's logits.

    L(N, D, T) = T + T**-c0 * (1 + (T / (S * d1))**(1 / f1))**(-c1 * f1)
                   * (a / N**alpha + b / D**beta)**gamma

    T is the teacher's loss, and S what `supervised` predicts for the student's own N and D. With
    the published coefficients the last factor hardly depends on D, so tokens act through S alone,
    and small students with few tokens come out too good: against the 354 students the paper plots,
    the median error is 0.7%, but those of 143M parameters and 26 tokens for each lie 0.11 nats
    above the law on average.
    """

    a: float
    b: float
    alpha: float
    beta: float
    gamma: float
    c0: float
    c1: float
    d1: float
    f1: float
    supervised: SupervisedLaw
    source: Publication


@dataclass(frozen=True)
class RepeatedDataLaw:
    """Loss of training on repeated text: L = e + a / N'**alpha + b / D'**beta.

    N' and D' are effective counts (`effective_parameters`, `effective_tokens`). `token_decay` is
    R*_D and `parameter_decay` R*_N: repeats after which a further repeat is worth 1/e of a new one.
    """

    e: float
    a: float
    b: float
    alpha: float
    beta: float
    token_decay: float
    parameter_decay: float
    source: Publication


SUPERVISED = SupervisedLaw(
    e=1.220,
    a=3355.0,
    b=18186.0,
    alpha=0.408,
    beta=0.431,
    gamma=0.452,
    source=Publication(
        citation="Busbridge et al. 2025, arXiv 2502.08606, Table 6 (supervised)",
        fitted_on="decoder language models, English C4",
        parameters=(143e6, 12.6e9),
        tokens=(3.7e9, 515e9),
    ),
)

DISTILLATION = DistillationLaw(
    a=2243.0,
    b=24181.0,
    alpha=0.321,
    beta=0.637,
    gamma=0.764,
    c0=2.549,
    c1=522.61,
    d1=1.315,
    f1=0.090,
    supervised=SUPERVISED,
    source=Publication(
        citation="Busbridge et al. 2025, arXiv 2502.08606, equation 8 and Table 6 (distillation)",
        fitted_on=(
            "decoder language models, logits of a teacher as the only target, temperature 1, "
            "English C4"
        ),
        parameters=(143e6, 7.75e9),
        tokens=(3.7e9, 515e9),
    ),
)

REPEATED_DATA = RepeatedDataLaw(
    e=float(np.exp(0.6254804)),
    a=float(np.exp(6.255414)),
    b=float(np.exp(7.3049974)),
    alpha=0.3526596,
    beta=0.3526596,
    token_decay=15.387756,
    parameter_decay=5.309743,
    source=Publication(
        citation="Muennighoff et al. 2023, arXiv 2305.16264, equations 13 to 17 (Appendix A)",
        fitted_on="182 decoder language models, 1 to 500 epochs of subsets of C4",
        parameters=(7e6, 9e9),
        tokens=(1e8, 900e9),
    ),
)


def supervised_loss(
    parameters: ArrayLike, tokens: ArrayLike, law: SupervisedLaw = SUPERVISED
) -> Array:
    """Compute the loss of a model trained on text alone.

    Args:
        parameters: N, non-embedding parameters; broadcast against `tokens`.
        tokens: D, tokens seen once; effective tokens where text is repeated.
        law: coefficients of the law.

    Returns:
        Nats per token, of the broadcast shape.

    Raises:
        InputError: a count that is not above 0.
    """
    n = _positive("parameters", parameters)
    d = _positive("tokens", tokens)
    return np.asarray(law.e + (law.a / n**law.alpha + law.b / d**law.beta) ** law.gamma)


def distilled_loss(
    parameters: ArrayLike,
    tokens: ArrayLike,
    teacher_loss: ArrayLike,
    law: DistillationLaw = DISTILLATION,
) -> Array:
    """Compute the loss of a student trained on a teacher's logits.

    It is never below the teacher's loss, and rises again under too good a teacher.

    Args:
        parameters: N of the student, non-embedding; the three broadcast.
        tokens: D, tokens the student sees.
        teacher_loss: the teacher's own loss on the same held-out text, nats per token.
        law: coefficients of the law.

    Returns:
        Nats per token, of the broadcast shape.

    Raises:
        InputError: a count or a loss that is not above 0.
    """
    n = _positive("parameters", parameters)
    d = _positive("tokens", tokens)
    teacher = _positive("teacher_loss", teacher_loss)
    ratio = teacher / (supervised_loss(n, d, law.supervised) * law.d1)
    mixing = np.exp(-law.c1 * law.f1 * np.log1p(ratio ** (1 / law.f1)))
    capacity = (law.a / n**law.alpha + law.b / d**law.beta) ** law.gamma
    return np.asarray(teacher + teacher**-law.c0 * mixing * capacity)


def effective_tokens(
    tokens: ArrayLike, unique: ArrayLike, decay: ArrayLike = REPEATED_DATA.token_decay
) -> Array:
    """Compute the new tokens that the tokens seen are worth: U + U R* (1 - exp(-R / R*)).

    R = D / U - 1 are the repeats (equations 5 and 13 of Muennighoff et al.). Below one epoch
    nothing is repeated and D itself comes back; over many epochs the worth saturates at U (1 + R*).
    The published R* is for decoders, whose targets are the same in every epoch; a masked language
    model with new masks in each epoch may get more out of a repeat.

    Args:
        tokens: D, tokens seen, repeats included; the three broadcast.
        unique: U, different tokens there are; infinity for text without end.
        decay: R*, in repeats.

    Raises:
        InputError: an argument that is not above 0.
    """
    return _discount(
        _positive("tokens", tokens), _positive("unique", unique), _positive("decay", decay)
    )


def effective_parameters(
    parameters: ArrayLike, unique: ArrayLike, law: RepeatedDataLaw = REPEATED_DATA
) -> Array:
    """Compute the number of parameters that count where unique text is scarce.

    Parameters beyond the compute-optimal size for U tokens are discounted as repeats of tokens are.
    That size is (U G)**(beta / alpha) G with G = (alpha a / (beta b))**(1 / (alpha + beta))
    (equation 15 of Muennighoff et al.; 0.051 U as published).

    Args:
        parameters: N; broadcast against `unique`.
        unique: U, different tokens there are.
        law: coefficients of the law.

    Raises:
        InputError: an argument that is not above 0.
    """
    n = _positive("parameters", parameters)
    u = _positive("unique", unique)
    balance = (law.alpha * law.a / (law.beta * law.b)) ** (1 / (law.alpha + law.beta))
    optimal = (u * balance) ** (law.beta / law.alpha) * balance
    return _discount(n, optimal, np.asarray(law.parameter_decay))


def repeated_loss(
    parameters: ArrayLike,
    tokens: ArrayLike,
    unique: ArrayLike,
    law: RepeatedDataLaw = REPEATED_DATA,
) -> Array:
    """Compute the loss of a model trained on repeated text (equation 14 of Muennighoff et al.).

    Args:
        parameters: N; the three broadcast.
        tokens: D, tokens seen, repeats included.
        unique: U, different tokens there are.
        law: coefficients of the law.

    Returns:
        Nats per token, of the broadcast shape.

    Raises:
        InputError: an argument that is not above 0.
    """
    u = np.minimum(_positive("unique", unique), _positive("tokens", tokens))
    n = effective_parameters(parameters, u, law)
    d = effective_tokens(tokens, u, law.token_decay)
    return np.asarray(law.e + law.a / n**law.alpha + law.b / d**law.beta)


def _discount(count: Array, full_worth: Array, decay: Array) -> Array:
    """Discount what goes beyond `full_worth`: each repeat of it is worth less than the last."""
    fresh = np.minimum(count, full_worth)
    return np.asarray(fresh - fresh * decay * np.expm1(-(count / fresh - 1) / decay))


def _positive(name: str, value: ArrayLike) -> Array:
    """Convert an argument to an array; refuse what is not above 0."""
    array = np.asarray(value, np.float64)
    if not (array > 0).all():
        raise InputError(f"{name}: found {array[~(array > 0)].flat[0]:g}, expected numbers above 0")
    return array
