"""Forecasts of what each arm would reach at a budget nobody has spent: published laws, and fits to
pilot runs."""

from kdjax.forecast.crossvalidate import CrossValidation, HeldOut, hold_out
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
from kdjax.forecast.runs import Run
from kdjax.forecast.winner import Contest, Crossing, Range, contests

__all__ = [
    "DISTILLATION",
    "REPEATED_DATA",
    "SUPERVISED",
    "Contest",
    "CrossValidation",
    "Crossing",
    "DistillationLaw",
    "Estimate",
    "Fit",
    "Fits",
    "HeldOut",
    "Point",
    "Prediction",
    "Range",
    "RepeatedDataLaw",
    "Run",
    "Source",
    "SupervisedLaw",
    "contests",
    "distilled_loss",
    "effective_parameters",
    "effective_tokens",
    "fit",
    "hold_out",
    "repeated_loss",
    "supervised_loss",
]
