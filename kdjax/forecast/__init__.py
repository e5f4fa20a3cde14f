"""Fit scaling laws to runs and evaluate published ones: numbers in, numbers out.

The mathematics behind `plan`; it knows nothing of recipes, studies or files.
"""

from kdjax.forecast.crossvalidate import CrossValidation, HeldOutPrediction, hold_out
from kdjax.forecast.fit import Fit, Fits, ParameterEstimate, Point, Prediction, fit
from kdjax.forecast.laws import (
    DISTILLATION,
    REPEATED_DATA,
    SUPERVISED,
    DistillationLaw,
    Publication,
    RepeatedDataLaw,
    SupervisedLaw,
    distilled_loss,
    effective_parameters,
    effective_tokens,
    repeated_loss,
    supervised_loss,
)
from kdjax.forecast.pilot_runs import PilotRun
from kdjax.forecast.winner import Crossover, PairwiseComparison, Range, compare_arms

__all__ = [
    "DISTILLATION",
    "REPEATED_DATA",
    "SUPERVISED",
    "CrossValidation",
    "Crossover",
    "DistillationLaw",
    "Fit",
    "Fits",
    "HeldOutPrediction",
    "PairwiseComparison",
    "ParameterEstimate",
    "PilotRun",
    "Point",
    "Prediction",
    "Publication",
    "Range",
    "RepeatedDataLaw",
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
