"""What results.json holds as a whole.

A field has the name of its key in the file. `kdjax.results.store` reads and writes it. Losses are
in nats, costs in FLOPs, times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.data.contamination.check import Contamination
from kdjax.results.arm_results import ArmResult, SettingRow, StudentFacts
from kdjax.results.runs import ReferenceModel, RunResult
from kdjax.results.teacher_facts import StoredOutputs, TeacherFacts
from kdjax.results.text import CorpusFacts
from kdjax.results.tuning import Tuning
from kdjax.results.verdicts import Case, ContrastVerdict, MeasuredEndpoint, PairVerdict
from kdjax.storage.typed_json import LATER, optional

VERSION = 3
"""Version of results.json. A file without one is of the first, which had no `baseline_arm`. The
second one tested the primary endpoint apart from the verdicts, and adjusted no other."""


@dataclass(frozen=True)
class Results:
    """A study's results: the content of results.json.

    Attributes:
        version: version of the file's format.
        kdjax, jax, python, device: versions and device the numbers were made with.
        wall_clock: seconds of the study's commands, by kind.
        config: resolved recipe as plain values (`kdjax.recipes.from_dict` reads it).
        config_digest: SHA-256 of the resolved recipe.
        budget: budget of each run.
        corpus: facts of the text.
        teacher: facts of the teacher; None where no arm needs one.
        cache: facts of the stored teacher outputs; None where no arm reads any.
        student: size of the first arm's student.
        arms: name -> arm as it ran, in the recipe's order.
        baseline_arm: arm that the others are held against.
        differences: settings in which arms differ.
        same: settings that the arms share, in words.
        endpoints: measures of the models.
        runs: finished runs, seed by seed, arm by arm.
        references: measured untrained starts and teachers.
        verdicts: verdicts on every pair of arms on every endpoint.
        primary: name of the primary endpoint; None without one.
        tuning: tuning of the arms; None where they were not tuned.
        cases: costs and verdicts under each way to pay for the teacher.
        notes: remarks a reader has to know, in sentences.
        contamination: evaluation rows that stand in training text; None where nobody looked.
        contrasts: verdicts on the recipe's hypotheses and other contrasts.
        looks: numbers of seeds with which results were made before these, rising.
    """

    kdjax: str
    jax: str
    python: str
    device: str
    wall_clock: dict[str, float]
    config: dict[str, Any]
    config_digest: str
    budget: Budget
    corpus: CorpusFacts
    teacher: TeacherFacts | None
    cache: StoredOutputs | None
    student: StudentFacts
    arms: dict[str, ArmResult]
    baseline_arm: str
    differences: tuple[SettingRow, ...]
    same: tuple[str, ...]
    endpoints: tuple[MeasuredEndpoint, ...]
    runs: tuple[RunResult, ...]
    references: tuple[ReferenceModel, ...]
    verdicts: tuple[PairVerdict, ...]
    primary: str | None
    tuning: Tuning | None
    cases: tuple[Case, ...]
    notes: tuple[str, ...]
    version: int = VERSION
    contamination: Contamination | None = optional()
    contrasts: tuple[ContrastVerdict, ...] = field(default=(), metadata={LATER: True})
    looks: tuple[int, ...] = field(default=(), metadata={LATER: True})
