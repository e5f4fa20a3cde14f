"""Forecasts of each arm at budgets nobody has spent: published laws, and fits to pilot runs."""

from kdjax.forecast.crossvalidate import CrossValidation, HeldOutPrediction, hold_out
from kdjax.forecast.fit import Estimate, Fit, Fits, Point, Prediction, fit
from kdjax.forecast.laws import (
    DISTILLATION,
    REPEATED_DATA,
    SUPERVISED,
    DistillationLaw,
    RepeatedDataLaw,
    Source,
    SupervisedLaw,
    distilled_loss,
    effective_parameters,
    effective_tokens,
    repeated_loss,
    supervised_loss,
)
from kdjax.forecast.runs import PilotRun
from kdjax.forecast.winner import Crossover, PairwiseComparison, Range, compare_arms

__all__ = [
    "DISTILLATION",
    "REPEATED_DATA",
    "SUPERVISED",
    "CrossValidation",
    "Crossover",
    "DistillationLaw",
    "Estimate",
    "Fit",
    "Fits",
    "HeldOutPrediction",
    "PairwiseComparison",
    "PilotRun",
    "Point",
    "Prediction",
    "Range",
    "RepeatedDataLaw",
    "Source",
    "SupervisedLaw",
    "compare_arms",
    "distilled_loss",
    "effective_parameters",
    "effective_tokens",
    "fit",
    "hold_out",
    "repeated_loss",
    "supervised_loss",
]
