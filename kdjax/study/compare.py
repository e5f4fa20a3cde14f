"""A study: every arm under every seed within one budget, evaluated alike, written down as results and a report."""

from __future__ import annotations

import shutil
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from kdjax import models
from kdjax.budget.ledger import affordable_steps
from kdjax.config import Config, plain, to_dict
from kdjax.data import tasks
from kdjax.data.loader import Corpus
from kdjax.data.tasks import Task
from kdjax.errors import InputError, nearest
from kdjax.evaluate.mlm import held_out_loss
from kdjax.files import read_json, undone_by_bad_input, write_json
from kdjax.models import zoo
from kdjax.objectives.presets import terms_of
from kdjax.parallel.mesh import check_batch, make_mesh
from kdjax.study import record, report, setup, table
from kdjax.study.evaluation import Evaluation
from kdjax.study.pricing import arms_of, shape_of
from kdjax.study.progress import Reporter
from kdjax.study.record import Record
from kdjax.study.results import collect, versions
from kdjax.train.arm import Program, price
from kdjax.train.checkpoint import save_params
from kdjax.train.log import Stopwatch
from kdjax.train.loop import train

PLAIN_WIDTH = 120
"""Columns of the table where the output is no terminal."""


def compare(config: Config, out: Path) -> dict[str, Any]:
    """Runs a study, or goes on with an interrupted one: finished runs are kept, a half-finished one goes on.

    Args:
        config: the recipe.
        out: the study's directory. It gets `results.json` and `report.html`, and holds `runs/ARM-seedN/` and the
            corpus and the teacher made for the study.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: anything wrong with the recipe, the text, the teacher or the directory.
    """
    with Reporter() as reporter:
        study = _claimed(config, out, reporter)
        left = sum(not study.finished(arm, seed) for seed in config.seeds for arm in config.arms)
        reporter.plan(study.budget * left)
        runs = [study.run(arm, seed) for seed in config.seeds for arm in config.arms]
        results = collect(
            config,
            arms=study.arms,
            prices=study.prices,
            manifest=study.corpus.manifest,
            teacher=study.teacher.facts if study.teacher else None,
            tasks=study.tasks,
            runs=runs,
            references=study.references(),
        )
        write_json(out / "results.json", results)
        report.write(results, out / "report.html")
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table.summary(results))
    print(f"report: {out / 'report.html'}")
    return results


def train_one(config: Config, out: Path, arm: str, seed: int) -> dict[str, Any]:
    """One run of a study; `compare` with the same directory takes it up as done.

    Raises:
        InputError: as `compare`; or the recipe has no such arm or seed.
    """
    if arm not in config.arms:
        raise InputError(f"--arm is {arm!r}, expected an arm of the recipe{nearest(arm, config.arms)}")
    if seed not in config.seeds:
        raise InputError(f"--seed is {seed}, expected one of the recipe's seeds {list(config.seeds)}")
    with Reporter() as reporter:
        return _claimed(config, out, reporter).run(arm, seed)


def _claimed(config: Config, out: Path, reporter: Reporter) -> Study:
    """A study ready to run. Bad input leaves the directory as it was found, so that a corrected recipe can have it."""
    with undone_by_bad_input(out, *(out / name for name in record.BEFORE)):
        study = Study(config, out, reporter)
        study.claim()
    return study


class Study:
    """A recipe and its directory, and what its runs share: each made once, when first needed.

    Attributes:
        config: the recipe.
        arms: name -> arm.
        prices: name -> price of one step, as counted when the study first started.
        budget: FLOPs of each run.
        steps: name -> steps the budget buys.
    """

    def __init__(self, config: Config, out: Path, reporter: Reporter):
        self.config, self._out, self._reporter = config, out, reporter
        self.arms, self.shape, self.budget = arms_of(config), shape_of(config), int(config.budget.flops)
        self._record = Record(config, out)
        self.prices = {
            name: self._record.prices[name] if name in self._record.prices else price(arm, self.shape)
            for name, arm in self.arms.items()
        }
        self.steps = {
            name: affordable_steps(self.budget, cost, f"arms.{name}: budget.flops")
            for name, cost in self.prices.items()
        }
        self._needs_teacher = any(arm.teacher for arm in self.arms.values())
        self.student = zoo.resolve(config.student)
        self.mesh = make_mesh()
        self._programs: dict[str, Program] = {}
        check_batch(self.shape.batch, self.mesh)

    @cached_property
    def corpus(self) -> Corpus:
        """The prepared corpus."""
        return setup.corpus_of(self.config, self._out / "data", self._reporter)

    @cached_property
    def teacher(self) -> setup.Teacher | None:
        """The teacher, when an arm looks at one."""
        if not self._needs_teacher:
            return None
        return setup.teacher_of(self.config, self.corpus, self._out / "teacher", self.mesh, self._reporter)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The downstream tasks."""
        tokenizer, length = setup.tokenizer_of(self.config), self.config.data.length
        return tuple(tasks.load(name, task, tokenizer, length) for name, task in self.config.evaluation.tasks.items())

    @cached_property
    def evaluation(self) -> Evaluation:
        """What every model is measured by."""
        return Evaluation(self.config.evaluation, setup.held_out_batches(self.config, self.corpus), self.tasks)

    def claim(self) -> None:
        """Makes all that runs need, then takes the directory for this recipe; the prices stored now hold for good."""
        _ = self.tasks
        if self._needs_teacher and self._record.new:
            setup.check_teacher(self.config, self.mesh)
        setup.train_batches(self.config, self.corpus, self.shape.batch, seed=0)
        for arm in self.arms.values():
            if arm.teacher is not None and self.teacher is not None:
                arm.teacher_part(self.teacher.model.params)
        _ = self.evaluation
        self._record.write(self.prices)

    def trains_mlm_head(self, arm: str) -> bool:
        """Whether an arm's objective gives the MLM head a gradient."""
        return all(jax.tree.leaves(self.arms[arm].trained["model"]["mlm"]))

    def finished(self, arm: str, seed: int) -> bool:
        """Whether a run has its result."""
        return (self._directory(arm, seed) / "result.json").exists()

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """One run to its end, however far it had come; a row of `results.json`.

        Raises:
            InputError: the loss is not finite, a checkpoint is damaged, or the directory holds another run.
        """
        directory = self._directory(arm, seed)
        self._claim_run(directory, arm, seed)
        if self.finished(arm, seed):
            return read_json(directory / "result.json")  # type: ignore[no-any-return]
        evaluation, program, cost = self.evaluation, self._program(arm), self.prices[arm]
        stream = setup.train_batches(self.config, self.corpus, self.shape.batch, seed)
        mlm = self.trains_mlm_head(arm)
        outcome = train(
            program,
            cost,
            self.budget,
            stream,
            start=models.init(self.student, seed).params,
            teacher=program.place_teacher(self.teacher.model.params if self.teacher else None),
            seed=seed,
            config=self.config.train,
            directory=directory,
            evaluate=(lambda params: held_out_loss(self.student, params, evaluation.held_out).loss) if mlm else None,
            watch=self._reporter.watch(f"{arm}, seed {seed}"),
        )
        ledger = outcome.ledger
        self._reporter.show(f"{arm}, seed {seed}: evaluating")
        clock = Stopwatch(ledger.seconds)
        with clock("evaluation"):
            metrics, details = evaluation.measure(self.student, outcome.params, seed, mlm=mlm)
        row = {
            "arm": arm,
            "seed": seed,
            "budget": self.budget,
            "spent": {**ledger.spent, "total": ledger.total},
            "steps": ledger.steps,
            "tokens_seen": ledger.tokens,
            "tokens_unique": ledger.unique_tokens,
            "epochs": ledger.steps * self.shape.batch / stream.sequences,
            "wall_clock": {"compile": program.compile_seconds, **clock.seconds},
            "metrics": metrics,
            "details": details,
            "curve": outcome.curve,
            "params_sha256": outcome.params_sha256,
        }
        save_params(directory / "params.safetensors", outcome.params)
        write_json(directory / "result.json", row)
        shutil.rmtree(directory / "checkpoints")
        figures = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        self._reporter.say(f"{arm}, seed {seed}: {ledger.steps} steps, {ledger.total:.4g} FLOPs; {figures}")
        return row

    def references(self) -> list[dict[str, Any]]:
        """The untrained start of each seed and the teacher, measured like the runs: what the arms stand between."""
        rows = [
            self._reference(
                f"untrained-seed{seed}", "untrained start", seed, self.student, models.init(self.student, seed).params
            )
            for seed in self.config.seeds
        ]
        if self.teacher is not None:
            rows.append(self._reference("teacher", "teacher", None, *self.teacher.model))
        return rows

    def _reference(self, directory: str, name: str, seed: int | None, model: Any, params: Any) -> dict[str, Any]:
        path = self._out / "references" / directory / "result.json"
        if not path.exists():
            self._reporter.show(f"{name}: evaluating")
            is_teacher = seed is None
            mlm = is_teacher and "mlm" in params
            metrics, details = self.evaluation.measure(model, params, seed or 0, mlm=mlm, tuned=not is_teacher)
            write_json(path, {"name": name, "seed": seed, "metrics": metrics, "details": details})
        return read_json(path)  # type: ignore[no-any-return]

    def _directory(self, arm: str, seed: int) -> Path:
        return self._out / "runs" / f"{arm}-seed{seed}"

    def _claim_run(self, directory: Path, arm: str, seed: int) -> None:
        """Writes the run's manifest, or checks that the one there is this run's."""
        path = directory / "manifest.json"
        identity = {
            "arm": arm,
            "seed": seed,
            "terms": [plain(to_dict(term)) for term in terms_of(arm, self.config.arms[arm])],
            "price": self.prices[arm].to_json(),
            "budget": self.budget,
            "corpus": self.corpus.manifest.digest,
            "teacher": self.teacher.facts if self.teacher and self.arms[arm].teacher else None,
            "config": plain(to_dict(self.config)),
        }
        if not path.exists():
            write_json(path, {**identity, **versions()})
            return
        found = read_json(path)
        for name in ("terms", "price", "budget", "corpus", "teacher"):
            if found[name] != identity[name]:
                raise InputError(
                    f"{path}: this run's {name} is {found[name]!r}, expected {identity[name]!r}; use another --out"
                )

    def _program(self, arm: str) -> Program:
        if arm not in self._programs:
            self._reporter.show(f"{arm}: compiling")
            self._programs[arm] = Program(self.arms[arm], self.shape, self.steps[arm], self.mesh)
        return self._programs[arm]
