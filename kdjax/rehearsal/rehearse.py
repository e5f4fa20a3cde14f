"""A rehearsal: a recipe's whole path scaled down, by the commands of the study itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdjax import recipes
from kdjax.config import Config, differences, plain, to_dict
from kdjax.data.corpus import Corpus, apply_regime
from kdjax.errors import InputError, counted
from kdjax.progress import Reporter
from kdjax.rehearsal.budgets import with_budgets
from kdjax.rehearsal.commands import Commands
from kdjax.rehearsal.inputs import write_inputs
from kdjax.rehearsal.scale import devices, scale_recipe
from kdjax.results.store import RESULTS
from kdjax.storage.files import entries, read_json, write_text
from kdjax.study.runs.run_backup import RESULT, run_name

NEVER = 1e9
"""Seconds between checkpoints of a run that saves none before its end."""


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal did.

    Attributes:
        config: recipe that was run.
        commands: command lines that were run.
        results: content of its results.json.
        killed: run that was killed and went on.
        was_killed: whether it was; else it had ended before.
        is_same: whether it ended with the parameters of a run that nothing disturbed; None under a
            budget of hours, where no two runs are alike.
        seconds: wall-clock of all of it.
    """

    config: Config
    commands: tuple[str, ...]
    results: Mapping[str, Any]
    killed: str
    was_killed: bool
    is_same: bool | None
    seconds: float


def rehearse(
    config: Config,
    out: Path,
    reporter: Reporter,
    commands_of: Callable[[Path, int], Commands] = Commands,
) -> Rehearsed:
    """Run a recipe's whole path, scaled down, on text and tasks made for it.

    The corpus is prepared; of the first arm's first run every step is saved, and it is killed at a
    checkpoint; the study goes on from there: teacher, stored outputs, every arm, every protocol,
    report. It is audited, and the run is made again without being killed.

    Args:
        config: the recipe.
        out: directory for all of it, new or empty.
        reporter: receiver of reports on progress.
        commands_of: makes what runs commands, of a directory for logs and a number of devices.

    Raises:
        InputError: the directory is not empty, the recipe cannot be scaled down, a command of it
            fails, or the run that was killed ends with other parameters.
    """
    begun = time.monotonic()
    if entries(out):
        raise InputError(f"{out}: is not empty, expected a new or empty directory for --out")
    if not config.arms:
        raise InputError("arms is empty, expected at least one arm, for instance {scratch: {}}")

    # Text, teacher and tasks of the rehearsal's own; then the corpus, on whose size stored outputs'
    # cost depends.
    reporter.stage("rehearsal: making text, teacher and tasks")
    smaller = scale_recipe(config, write_inputs(config, (out / "inputs").resolve()))
    commands = commands_of(out / "logs", devices(smaller.train.mesh))
    recipe = out / "recipe.yaml"
    # Any budget: preparing reads none.
    unpriced = replace(smaller, budget=config.budget)
    write_text(recipe, recipes.dump(unpriced))
    reporter.stage("rehearsal: preparing the corpus")
    prepared = (out / "prepared").resolve()
    commands.run("prepare", recipe, "--out", prepared)
    smaller = replace(smaller, data=replace(smaller.data, prepared=str(prepared)))
    corpus = apply_regime(smaller.data, Corpus.open(prepared))
    reporter.stage("rehearsal: counting what a step of each arm costs")
    smaller = with_budgets(smaller, corpus.sequences("train"), config.budget)
    write_text(recipe, recipes.dump(smaller))

    # One run is killed at a checkpoint; the study takes it up and makes all others.
    arm = next(iter(smaller.arms))
    seed = smaller.seeds[0]
    study = out / "study"
    chosen = ("--arm", arm, "--seed", str(seed))
    saved = ("--train.checkpoint.seconds", "0")
    reporter.stage(f"rehearsal: {run_name(arm, seed)}, killed at a checkpoint")
    watched = [study]
    if smaller.train.checkpoint.directory:
        watched.append(Path(smaller.train.checkpoint.directory))
    was_killed = commands.kill_at_checkpoint(
        watched, "train", recipe, "--out", study, *chosen, *saved
    )
    reporter.stage(f"rehearsal: going on with it, and {counted(_runs(smaller), 'run')} in all")
    commands.run("compare", recipe, "--out", study)
    reporter.stage("rehearsal: auditing")
    commands.run("audit", study)

    is_same = None
    if config.budget.kind != "hours":
        reporter.stage(f"rehearsal: {run_name(arm, seed)} without being killed")
        is_same = _is_same(smaller, recipe, out, commands, chosen)
    results = read_json(study / RESULTS)
    return Rehearsed(
        smaller,
        tuple(commands.ran),
        results,
        run_name(arm, seed),
        was_killed,
        is_same,
        time.monotonic() - begun,
    )


def _runs(config: Config) -> int:
    return len(config.arms) * len(config.seeds)


def _is_same(
    config: Config, recipe: Path, out: Path, commands: Commands, chosen: tuple[str, ...]
) -> bool:
    """Make a run again, in a directory of its own, and compare its parameters.

    Raises:
        InputError: they differ, or the command fails.
    """
    straight = out / "straight"
    never = ("--train.checkpoint.seconds", f"{NEVER:g}", "--train.checkpoint.directory", "")
    commands.run("train", recipe, "--out", straight, *chosen, *never)
    name = run_name(chosen[1], int(chosen[3]))
    digests = []
    for directory in (out / "study", straight):
        result = read_json(directory / "runs" / name / RESULT)
        digests.append(result["params_sha256"])
    if digests[0] != digests[1]:
        raise InputError(
            f"rehearsal: {name} was killed and went on, and its parameters have the SHA-256 "
            f"{digests[0][:12]}, expected {digests[1][:12]} as without the kill"
        )
    return True


def lines_of(recipe: Config, rehearsed: Rehearsed) -> list[str]:
    """Return lines on the commands that were run, and on the settings that were scaled for them."""
    config = rehearsed.config
    lines = ["ran:"]
    lines += [f"  {command}" for command in rehearsed.commands]
    steps = []
    for run in rehearsed.results["runs"]:
        if run["seed"] == config.seeds[0]:
            steps.append(f"{run['arm']} {run['steps']}")
    lines.append(f"steps: {', '.join(steps)}")
    measures = ["mlm_loss"]
    if config.evaluation.mlm_probe.tokens:
        measures.append("mlm_probe")
    if config.evaluation.minimal_pairs.directory:
        measures.append("minimal pairs")
    if config.evaluation.task_results:
        results = ", ".join(config.evaluation.task_results)
        measures.append(f"{', '.join(config.evaluation.protocols)} on {results}")
    lines.append(f"measured: {'; '.join(measures)}")
    kill = f"{rehearsed.killed} was killed at a checkpoint and went on"
    if not rehearsed.was_killed:
        kill = f"{rehearsed.killed} ended before it could be killed"
    if rehearsed.is_same:
        kill += ": its parameters are those of a run that nothing disturbed, bit for bit"
    lines.append(kill)
    lines.append("scaled:")
    for name, before, after in differences(plain(to_dict(recipe)), plain(to_dict(config))):
        lines.append(f"  {name}: {_short(before)} -> {_short(after)}")
    lines.append(
        "not rehearsed: your text, teacher and tasks, an accelerator and its kernels, several hosts"
    )
    return lines


def _short(value: Any) -> str:
    """Return a value as text that fits on a line."""
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    if len(text) > 48:
        text = f"{text[:45]}..."
    return text
