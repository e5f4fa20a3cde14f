"""Tables of scores: one for each kind of endpoint, legible at any width, with failures counted."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from kdjax.evaluation.finetuning import FinetunedTask, Setting, Trial
from kdjax.report import score_tables, study_page, terminal
from kdjax.report.score_tables import ScoreTable
from kdjax.results.runs import ReferenceModel, ShuffledLoss
from kdjax.results.study import Results
from kdjax.results.verdicts import MeasuredEndpoint, PairVerdict
from tests.report.page import Page
from tests.report.results import study
