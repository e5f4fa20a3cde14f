"""Settings of a whole recipe, with those of a sweep, of tuning and of a plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kdjax.config.arms import ArmConfig
from kdjax.config.budget import BudgetConfig
from kdjax.config.data import DataConfig, TokenizerConfig
from kdjax.config.evaluation import EvaluationConfig
from kdjax.config.model import ModelSpec, with_family_settings
from kdjax.config.teacher import CacheConfig, TeacherConfig
from kdjax.config.train import TrainConfig
from kdjax.config.values import (
    FLOPS_LIMIT,
    LARGEST_SEED,
    check_mapping,
    check_names,
    check_number,
    check_range,
    check_seeds,
    expect,
)
from kdjax.errors import InputError
from kdjax.storage.paths import check_setting

RANGE_LIMIT = 1e300
"""Largest end of a range; the width of a range is finite, too."""


@dataclass(frozen=True)
class RangeConfig:
    """Values that tuning may try: a range of numbers, or a list of choices."""

    low: float = 0.0
    """Lowest number; finite."""
    high: float = 0.0
    """Highest number; finite."""
    log: bool = False
    """Whether numbers are drawn evenly on a logarithmic scale."""
    choices: tuple[Any, ...] = ()
    """The values to try, instead of a range."""

    def __post_init__(self) -> None:
        check_range(self, "tune.space: ", -RANGE_LIMIT, RANGE_LIMIT, "low", "high")
        # Either choices or a range; a logarithmic scale begins above 0.
        if self.choices and (self.low, self.high, self.log) != (0.0, 0.0, False):
            raise InputError("tune.space: found choices and a range, expected one of them")
        if not self.choices and not (self.low < self.high and (self.low > 0 or not self.log)):
            kind = "0 < low < high" if self.log else "low < high"
            raise InputError(
                f"tune.space: found low {self.low:g} and high {self.high:g}, expected {kind}, or "
                "choices"
            )


@dataclass(frozen=True)
class TuneConfig:
    """Equal tuning: every arm gets the same number of trials of the same budget.

    Trials run on seeds of their own.
    """

    trials: int = 0
    """Number of trials of each arm, up to 1,000,000."""
    space: dict[str, RangeConfig] = field(default_factory=dict)
    """Values to try, by an arm's own setting, for instance optimizer.learning_rate."""
    endpoint: str = "mlm_loss"
    """The endpoint that is optimised: mlm_loss or mlm_probe, on held-out sequences that no
    evaluation uses, or probe.TASK on its dev rows."""
    share: float = 1.0
    """Budget of a trial, as a share of the recipe's, above 0, up to 1."""
    seeds: tuple[int, ...] = (1000,)
    """Seeds of a trial, 0 to 2^32 - 1, each once; its value is the mean over them. None of them may
    be among the recipe's seeds."""
    sampler: Literal["tpe", "random", "qmc"] = "tpe"
    """Optuna's sampler: tpe learns from the arm's trials so far; random and qmc give every arm the
    same points."""
    sampler_seed: int = 0
    """Seed of the sampler, 0 to 2^32 - 1."""

    def __post_init__(self) -> None:
        check_range(self, "tune.", 0, 10**6, "trials")
        check_range(self, "tune.", 0, LARGEST_SEED, "sampler_seed")
        check_seeds(self.seeds, "tune.seeds")
        check_mapping(self.space, "tune.space")
        in_range = not isinstance(self.share, bool) and 0 < self.share <= 1
        expect(in_range, "tune.share", self.share, "a share of the budget above 0, up to 1")


@dataclass(frozen=True)
class PlanConfig:
    """A forecast of what each arm would reach at budgets nobody has spent."""

    pilot: str = ""
    """Directory of a finished sweep over budgets with this recipe's arms, to which the forecast is
    fitted. Empty: only prices and published laws."""
    budgets: tuple[float, ...] = ()
    """Budgets to forecast, in FLOPs, above 0, up to 1e30. Empty: 1, 3, 10, 30 and 100 times the
    pilot's largest, or the recipe's."""
    endpoint: str = "mlm_loss"
    """The endpoint that is forecast."""
    resamples: int = 1000
    """Number of bootstrap resamples, 100 to 1,000,000."""
    seed: int = 0
    """Seed of the resamples, 0 to 2^32 - 1."""

    def __post_init__(self) -> None:
        # Fewer resamples make no interval.
        check_range(self, "plan.", 100, 10**6, "resamples")
        check_range(self, "plan.", 0, LARGEST_SEED, "seed")
        for budget in self.budgets:
            check_number(budget, "plan.budgets", 0, FLOPS_LIMIT, above=True)
        check_setting(self.pilot, "plan.pilot")


@dataclass(frozen=True)
class Config:
    """A recipe: corpus, student, teacher, arms, budget, seeds, evaluation."""

    data: DataConfig = DataConfig()
    """The corpus."""
    student: ModelSpec = ModelSpec()
    """The student."""
    teacher: TeacherConfig = TeacherConfig()
    """The teacher."""
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    """Arms by name: 1 to 64 letters, digits, _, +, - and dots, the first a letter, a digit or _.
    Names differ in more than capitals, and none is `teacher`."""
    cache: CacheConfig = CacheConfig()
    """Stored teacher outputs."""
    budget: BudgetConfig = BudgetConfig()
    """The budget of each arm."""
    train: TrainConfig = TrainConfig()
    """Training."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs, 0 to 2^32 - 1, each once: there is a run per arm and seed. Runs
    of a seed share start, order and masks."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""
    sweep: dict[str, Any] = field(default_factory=dict)
    """Lists of values by dotted setting, for `kdjax sweep`: every combination of values is a
    study. `trunk: shared` among them has runs of several budgets share all steps before the decay
    of the schedule `wsd`: each goes on from the next smaller one; `own`, which is so without it:
    none does."""
    tune: TuneConfig = TuneConfig()
    """Tuning, for `kdjax tune`."""
    tuning: str = ""
    """The tuning.json that this recipe's settings come from; its trials are counted in the
    report."""
    plan: PlanConfig = PlanConfig()
    """Forecasts, for `kdjax plan`."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds, "seeds")
        # Tables and figures have a line of this name.
        check_mapping(self.arms, "arms")
        check_names(self.arms, "arms", reserved=("teacher",))
        check_mapping(self.sweep, "sweep")
        check_setting(self.tuning, "tuning")
        self._fill_models()
        # A tokenizer that is trained sets the rows of both models' word embeddings, so that prices
        # need no data.
        tokenizer = self.data.tokenizer
        if isinstance(tokenizer, TokenizerConfig):
            size = tokenizer.size
            student = _with_vocabulary(self.student, size, "student")
            # The dataclass is frozen; this is still its construction.
            object.__setattr__(self, "student", student)
            # A teacher that reads tokens of its own has another vocabulary.
            if not self.data.teacher_tokenizer:
                teacher = _with_vocabulary(self.teacher.architecture, size, "teacher.architecture")
                object.__setattr__(self, "teacher", replace(self.teacher, architecture=teacher))
        self._check_teacher_tokens()

    def _fill_models(self) -> None:
        """Set what both models leave open to their families' settings, so that a recipe that is
        written out says all of it.

        Raises:
            InputError: a setting that contradicts itself.
        """
        student = with_family_settings(self.student)
        architecture = with_family_settings(self.teacher.architecture)
        # The dataclass is frozen; this is still its construction.
        object.__setattr__(self, "student", student)
        object.__setattr__(self, "teacher", replace(self.teacher, architecture=architecture))

    def _check_teacher_tokens(self) -> None:
        """Check that a teacher that reads tokens of its own is not trained on the student's.

        Raises:
            InputError: it, or a head of it, is.
        """
        if not self.data.teacher_tokenizer:
            return
        budgets = {
            "teacher.train.budget": self.teacher.train.budget,
            "teacher.head.budget": self.teacher.head.budget,
        }
        for name, budget in budgets.items():
            expect(
                not budget,
                name,
                f"{budget:g} under data.teacher_tokenizer",
                "0: what is trained here reads the student's tokens; train it by a recipe of its "
                "own tokenizer, and name it by teacher.source",
            )


def _with_vocabulary(model: ModelSpec, size: int, name: str) -> ModelSpec:
    """Return a model with a vocabulary of `size` entries.

    Args:
        model: a model with a vocabulary of that size, or of its family's, which nobody has set.
        size: entries of the vocabulary.
        name: dotted name of the model's settings, for messages.

    Raises:
        InputError: the model has a vocabulary of another size.
    """
    by_family = with_family_settings(ModelSpec(family=model.family)).vocab_size
    known = model.vocab_size in (size, by_family)
    expected = f"data.tokenizer.size, {size}, or none given"
    expect(known, f"{name}.vocab_size", model.vocab_size, expected)
    return replace(model, vocab_size=size)
