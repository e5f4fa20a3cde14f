"""Equal tuning: the same trials and budget for every arm, and the recipe with its best settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from rich.console import Console

from kdjax import recipes
from kdjax.arms.recipe_arms import arms_of
from kdjax.budget.accounting import Budget
from kdjax.config import Config, RangeConfig, plain, to_dict
from kdjax.errors import InputError, counted, nearest
from kdjax.evaluation.statistics import Better
from kdjax.parallel import hosts
from kdjax.results.text import CountedLosses
from kdjax.results.tuning import ArmTrials, BestTrial, TrialRow, TuningResults
from kdjax.storage.files import check_writable, digest, entries, write_json, write_text
from kdjax.storage.typed_json import to_plain
from kdjax.study.compare import PLAIN_WIDTH
from kdjax.study.machine import versions
from kdjax.study.writer import backup_of, sole_writer
from kdjax.tuning import table
from kdjax.tuning.search import TuningTrial, best_trial, search
from kdjax.tuning.space import distributions_of, edge_of, with_settings
from kdjax.tuning.trial import TrialReporter, Trials, recipe_of

NAME = "tuning.json"
"""In a tuning's directory: every trial, and what was best."""
RECIPE = "tuned.yaml"
"""The recipe with each arm's best settings."""


def tune(config: Config, out: Path) -> TuningResults:
    """Tune every arm alike, or go on with an interrupted tuning: trials that have ended are read.

    Args:
        config: the recipe, with `tune`.
        out: the tuning's directory. It gets `tuning.json` and `tuned.yaml`, and holds
            `trials/ARM/NNN/`, each a study's directory, and in `shared/` what they have in common.

    Raises:
        InputError: anything wrong with the recipe, the text, the teacher or the directory; or every
            trial of an arm diverged.
    """
    # Whatever is wrong with the recipe or the directory comes before the first run.
    better = _check(config)
    space = distributions_of(config)
    with sole_writer(out, backup_of(config)):
        return _tune(config, out, better, space)


def _tune(
    config: Config, out: Path, better: Better, space: dict[str, BaseDistribution]
) -> TuningResults:
    """Tune every arm in a directory that no other process writes to.

    Args:
        config: the recipe, with `tune`.
        out: the tuning's directory.
        better: which values of the endpoint are better.
        space: setting -> the values it may have.
    """
    _check_directory(out)
    reporter = TrialReporter()
    with reporter:
        trials = Trials(config, out, reporter)
        reporter.set_budget(trials.unspent)
        outcomes = search(tuple(config.arms), space, config.tune, better, trials.run)
        results = tuning_of_trials(config, outcomes, better, trials.ngram_losses)

    # The tuned recipe names the tuning, so that a study of it can check and report it.
    best = {
        name: with_settings(arm, results.arms[name].best.settings)
        for name, arm in config.arms.items()
    }
    write_json(out / NAME, to_plain(results))
    write_text(out / RECIPE, recipes.dump(replace(config, arms=best, tuning=str(out / NAME))))
    if hosts.is_main_process():
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table.summary(results))
        print(f"recipe: {out / RECIPE}")
    return results


def tuning_of_trials(
    config: Config,
    trials: Mapping[str, Sequence[TuningTrial]],
    better: Better,
    losses: CountedLosses | None = None,
) -> TuningResults:
    """Build the content of tuning.json.

    Args:
        config: resolved recipe, with `tune` settings.
        trials: arm -> its trials.
        better: whether lower or higher values of the endpoint are better.
        losses: cross-entropies of the trials' text.

    Raises:
        InputError: every trial of an arm diverged.
    """
    tune = config.tune
    values = plain(to_dict(config))
    return TuningResults(
        **versions(),
        optuna=optuna.__version__,
        config_digest=digest(values),
        endpoint=tune.endpoint,
        better=better,
        trials=tune.trials,
        share=tune.share,
        budget=Budget.from_config(recipe_of(config).budget),
        seeds=tune.seeds,
        sampler=tune.sampler,
        sampler_seed=tune.sampler_seed,
        space=values["tune"]["space"],
        arms={arm: _arm(arm, arm_trials, tune.space, better) for arm, arm_trials in trials.items()},
        ngram_losses=losses,
    )


def _arm(
    arm: str, trials: Sequence[TuningTrial], space: Mapping[str, RangeConfig], better: Better
) -> ArmTrials:
    """Return an arm's trials, the best of them, and what all cost.

    Raises:
        InputError: every trial of the arm diverged.
    """
    best = best_trial(trials, better)
    if best is None or best.outcome.value is None:
        raise InputError(
            f"arms.{arm}: {counted(len(trials), 'trial')}, all of them diverged, expected at least "
            "one that ends; narrow tune.space in another --out"
        )

    # A best value at the end of its range says that the range was too narrow.
    edges = {name: edge_of(space[name], value) for name, value in best.settings.items()}
    return ArmTrials(
        trials=tuple(
            TrialRow(trial.number, trial.settings, **asdict(trial.outcome)) for trial in trials
        ),
        diverged=sum(trial.outcome.value is None for trial in trials),
        best=BestTrial(best.number, best.settings, best.outcome.value),
        edges={name: edge for name, edge in edges.items() if edge},
        charged=sum(trial.outcome.charged for trial in trials),
        total=sum(trial.outcome.total for trial in trials),
        steps=sum(trial.outcome.steps for trial in trials),
        seconds=sum(trial.outcome.seconds for trial in trials),
    )


def _check(config: Config) -> Better:
    """Return the direction in which the endpoint's values are better.

    Raises:
        InputError: the recipe cannot be tuned.
    """
    tune = config.tune
    arms = arms_of(config)
    if not tune.trials:
        raise InputError("tune.trials is 0, expected at least 1")
    if not tune.seeds or len(set(tune.seeds)) < len(tune.seeds):
        raise InputError(f"tune.seeds is {list(tune.seeds)}, expected one or more, each once")
    # Settings chosen on the study's own seeds would fit those seeds.
    if shared := sorted({*tune.seeds} & {*config.seeds}):
        raise InputError(
            f"tune.seeds has {shared}, which are among seeds, expected seeds that the study does "
            "not use"
        )

    # The endpoint must exist for every arm, or their best trials could not be told.
    if tune.endpoint == "mlm_loss":
        if without := [name for name, arm in arms.items() if not arm.trains_mlm_head]:
            raise InputError(
                f"tune.endpoint is 'mlm_loss', which says nothing of {', '.join(without)}: no MLM "
                "head is trained; expected mlm_probe or probe.TASK, or only arms that train one"
            )
        return "lower"
    if tune.endpoint == "mlm_probe":
        if not config.evaluation.mlm_probe.tokens:
            raise InputError(
                "tune.endpoint is 'mlm_probe', expected evaluation.mlm_probe.tokens above 0 for it"
            )
        return "lower"
    probe_endpoints = [f"probe.{task}" for task in config.evaluation.task_results]
    if tune.endpoint not in probe_endpoints:
        hint = nearest(tune.endpoint, ["mlm_loss", "mlm_probe", *probe_endpoints])
        raise InputError(
            f"tune.endpoint is {tune.endpoint!r}, expected mlm_loss, mlm_probe or probe.TASK{hint}"
        )
    return "higher"


def _check_directory(out: Path) -> None:
    """Check that the directory is new, or a tuning's.

    Whether it is of this tuning is checked with each trial.

    Raises:
        InputError: it holds something else.
    """
    check_writable(out)
    names = ("shared", "trials", NAME, RECIPE)
    # A kill may leave what was being written under a temporary name.
    if any(path.name not in names and path.suffix != ".tmp" for path in entries(out)):
        raise InputError(
            f"{out}: holds files but no tuning, expected a new or empty directory for --out"
        )
