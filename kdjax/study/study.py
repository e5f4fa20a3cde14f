"""A recipe and its directory: everything its runs share, and each run to its end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.budget.hardware import peak
from kdjax.budget.ledger import PhaseSpan
from kdjax.budget.price import Price
from kdjax.clock import CLOCK
from kdjax.config import Config, ModelConfig, first_difference, plain, to_dict
from kdjax.data.corpus import Corpus
from kdjax.data.tasks import labelled as tasks
from kdjax.data.tasks.labelled import Task
from kdjax.dry_run import pricing
from kdjax.dry_run.pricing import arms_of, shape_of
from kdjax.dry_run.teacher_cost import cost_by_recipe
from kdjax.errors import InputError
from kdjax.evaluation.mlm import HeldOut
from kdjax.evaluation.mlm_probe import MlmProbe
from kdjax.files import digest, read_json, write_json
from kdjax.models import Model, zoo
from kdjax.parallel import hosts
from kdjax.parallel.layout import Layout, local
from kdjax.progress import Reporter
from kdjax.study import corpus as corpora
from kdjax.study import stored, tuned
from kdjax.study.artifact_dirs import places
from kdjax.study.evaluation import Evaluation
from kdjax.study.groups import groups
from kdjax.study.machine import hardware_use, versions
from kdjax.study.manifest import Cost, Record
from kdjax.study.run_backup import Mirror
from kdjax.study.teacher import Teacher, check_teacher, teachers_of
from kdjax.teacher_cache.store import Cache
from kdjax.training.arm import Arm
from kdjax.training.checkpoint import save_params
from kdjax.training.loop import train
from kdjax.training.metrics_log import check_log
from kdjax.training.phase import BatchShape, price
from kdjax.training.program import program_of
from kdjax.training.run import CompiledPhase, Outcome, Run
from kdjax.training.sinks import About
from kdjax.training.start import start_params
from kdjax.training.stopwatch import Stopwatch
from kdjax.training.teacher_source import CachedTeacher


class Study:
    """A recipe and its directory, and what its runs share: each made once, when first needed.

    Attributes:
        config: the recipe.
        arms: name -> arm.
        budget: of each run.
        places: where corpus, teacher, stored outputs and references lie.
    """

    def __init__(self, config: Config, out: Path, reporter: Reporter, shared: Path | None = None):
        """Opens the directory, or finds it free; nothing is made yet.

        Args:
            config: the recipe.
            out: the study's directory.
            reporter: told what goes on.
            shared: a directory for what other studies use too; None: all lies in `out`.
        """
        CLOCK.listen()
        hosts.check_same({**versions(), "recipe": plain(to_dict(config))})
        self.config, self._out, self._reporter, self.places = (
            config,
            out,
            reporter,
            places(config, out, shared),
        )
        self.arms = arms_of(config)
        self.shape = shape_of(config)
        self.budget = Budget.of(config.budget)
        check_log(config.train.log)
        self._compiled: set[str] = set()  # arms
        self._record = Record(config, out)
        self._prices = {name: self._prices_of(arm) for name, arm in self.arms.items()}
        for arm in self.arms.values():
            self._lay_out(arm, self._prices[arm.name], pricing.probe_charge(config, arm))
        self._needs_teacher = any(arm.needs_teacher for arm in self.arms.values())
        self.layout = Layout.of(config.train.mesh)
        for batch in (self.shape.batch_size, *(one.batch_size for one in config.train.batch_ramp)):
            self.layout.check_batch(batch, config.train.grad_accum_steps)

    def _prices_of(self, arm: Arm) -> tuple[Price, ...]:
        """Return what a step of each phase of an arm costs: as stored with the study, or counted
        now."""
        if arm.name in self._record.costs:
            return self._record.costs[arm.name].prices
        self._reporter.status(f"{arm.name}: counting what a step costs")
        return tuple(price(phase, phase.shape(self.shape)) for phase in arm.phases)

    @cached_property
    def corpus(self) -> Corpus:
        """The prepared corpus."""
        with CLOCK("text"):
            return corpora.corpus_of(self.config, self.places["data"], self._reporter)

    @cached_property
    def teachers(self) -> tuple[Teacher, ...]:
        """The teachers in ascending order of their seeds, when an arm looks at one; most studies
        have one."""
        if not self._needs_teacher:
            return ()
        corpus = self.corpus
        with CLOCK("teacher", whole=True):
            return teachers_of(
                self.config, corpus, self.places["teacher"], self.layout, self._reporter
            )

    def teacher_number(self, seed: int) -> int:
        """Return which of the n teachers the student of a seed learns from: seed modulo n."""
        return seed % max(1, len(self.teachers))

    def teacher_for(self, seed: int) -> Teacher | None:
        """Return the teacher that the student of a seed learns from; None where no arm looks at
        one."""
        return self.teachers[self.teacher_number(seed)] if self.teachers else None

    @cached_property
    def cache(self) -> Cache | None:
        """The teacher's stored outputs, when an arm reads them."""
        request = pricing.stored_by(self.arms)
        if not request or not self.teachers:
            return None
        teacher = self.teachers[0].model
        corpus = self.corpus  # the only one: `arms_of` refuses more
        with CLOCK("stored outputs", whole=True):
            return stored.cache_of(
                self.config, request, teacher, corpus, self.places["cache"], local(), self._reporter
            )

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Arm -> what its runs cost, as counted when the study first started."""
        return {name: self._cost(arm) for name, arm in self.arms.items()}

    @cached_property
    def spans(self) -> dict[str, tuple[PhaseSpan, ...]]:
        """Arm -> its phases as they lie in the budget; empty where a clock decides."""
        return {
            name: self._lay_out(arm, self.costs[name].prices, self.costs[name].upfront)
            for name, arm in self.arms.items()
        }

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The downstream tasks."""
        corpus = self.corpus if corpora.trains_tokenizer(self.config) else None
        tokenizer = corpora.tokenizer_of(self.config, corpus)
        length = self.config.data.seq_len
        with CLOCK("text"):
            return tuple(
                tasks.load(name, task, tokenizer, length)
                for name, task in self.config.evaluation.tasks.items()
            )

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """What every model is measured by: the same, beside each of the teachers; one where there
        is none."""
        vocabulary = zoo.resolve(self.config.student).vocab_size
        texts = {name: corpora.held_out(self.config, text) for name, text in self.texts.items()}
        # Read and shuffled once; only whose predictions stand beside them differs.
        own = corpora.held_out(self.config, self.corpus)
        beside: list[Model | None] = [teacher.model for teacher in self.teachers]
        made = []
        for teacher in beside or [None]:
            comparable = teacher if teacher and teacher.config.vocab_size == vocabulary else None
            held_out = HeldOut(own.batches, comparable, own.shuffled)
            made.append(
                Evaluation(self.config.evaluation, held_out, self.tasks, texts, self.mlm_probe)
            )
        return tuple(made)

    def evaluation_for(self, seed: int) -> Evaluation:
        """Return what the student of a seed is measured by, beside the teacher it learns from."""
        return self.evaluations[self.teacher_number(seed)]

    @cached_property
    def mlm_probe(self) -> MlmProbe | None:
        """The probe that every model gets; None where the recipe has none."""
        settings = self.config.evaluation.mlm_probe
        if not settings.tokens:
            return None
        batches = corpora.probe_batches(self.config, self.corpus)
        return MlmProbe(settings, batches, pricing.probe_shape(self.config))

    @cached_property
    def texts(self) -> dict[str, Corpus]:
        """Name -> held-out text from elsewhere, prepared."""
        with CLOCK("text"):
            return {
                name: corpora.text_of(self.config, self.corpus, name, self.places["texts"] / name)
                for name in self.config.evaluation.texts
            }

    def claim(self) -> None:
        """Makes all that runs need, then takes the directory for this recipe; the costs stored now
        hold for good."""
        tuned.tuning_of(self.config)
        # Before the tasks, which need the text where a tokenizer is trained on it.
        if self._needs_teacher and self._record.new:
            with CLOCK("teacher", whole=True):
                check_teacher(self.config, self.layout)
        _ = self.tasks
        corpora.train_batches(self.config, self.corpus, self.shape.batch_size, seed=0)
        # Before much is made: a share of it may exceed the budget
        for (
            name,
            spans,
        ) in self.spans.items():
            if spans:
                corpora.check_regime(
                    self.config, self.corpus, f"arms.{name}", _sequences(spans, self.shape)
                )
        for arm in self.arms.values():
            for teacher in self.teachers:
                for phase in arm.phases:
                    phase.teacher_part(teacher.model.params)
        _ = self.cache, self.evaluations
        hosts.check_same(
            {
                "corpus": self.corpus.digest,
                "teachers": [teacher.facts for teacher in self.teachers],
                "costs": {name: cost.to_json() for name, cost in self.costs.items()},
                "texts": {name: text.digest for name, text in self.texts.items()},
            }
        )
        self._record.write(self.costs)

    @property
    def left(self) -> float:
        """What its unfinished runs may still spend, in the budget's unit."""
        return self.budget.amount * sum(
            not self.finished(a, seed) for seed in self.config.seeds for a in self.arms
        )

    def finished(self, arm: str, seed: int) -> bool:
        """Whether a run has its result."""
        return (self._directory(arm, seed) / "result.json").exists()

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """One run to its end, however far it had come; a row of `results.json`.

        Raises:
            InputError: the loss is not finite, a checkpoint is damaged, or the directory holds
                another run.
        """
        (row,) = self.run_together(arm, (seed,))
        return row

    def run_all(self, runs: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """Runs to their end, as many of an arm at once as the recipe says; their rows in the order
        given.

        Args:
            runs: arm and seed of each.
        """
        at_once = self.config.train.vmapped_seeds if self.budget.countable else 1
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for arm, seeds in groups(runs, at_once, self._shared_teacher):
            rows |= zip([(arm, seed) for seed in seeds], self.run_together(arm, seeds), strict=True)
        return [rows[one] for one in runs]

    def _shared_teacher(self, arm: str, seed: int) -> int:
        """Return the number of the teacher whose parameters a run's program is given; 0 where it is
        given none."""
        return self.teacher_number(seed) if self.arms[arm].uses_teacher else 0

    def run_together(self, arm: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Runs of an arm to their end, however far each had come: those that are not finished go
        side by side.

        Args:
            arm: its name.
            seeds: of the runs; students that learn from the same teacher.

        Raises:
            InputError: as `run`; a budget of hours with several.
        """
        rows = {}
        mirrors = {}
        for seed in seeds:
            directory = self._directory(arm, seed)
            mirrors[seed] = mirror = Mirror(self.config.train.checkpoint.directory, directory)
            self._claim_run(directory, arm, seed, mirror)
            mirror.bring()
            if hosts.broadcast_from_main(self.finished(arm, seed)):
                mirror.keep()
                rows[seed] = hosts.broadcast_from_main(
                    read_json(directory / "result.json") if hosts.is_main_process() else None
                )
        left = [seed for seed in seeds if seed not in rows]
        rows |= self._trained(self.arms[arm], left, mirrors) if left else {}
        return [rows[seed] for seed in seeds]

    def _trained(
        self, arm: Arm, seeds: Sequence[int], mirrors: Mapping[int, Mirror]
    ) -> dict[int, dict[str, Any]]:
        """Seed -> the row of its run, trained side by side with the others."""
        compiled_phases = self._legs(arm, seeds)
        rows = {}
        outcomes = train(
            *(self._run(arm, seed, compiled_phases[seed], mirrors[seed]) for seed in seeds)
        )
        for seed, outcome in zip(seeds, outcomes, strict=True):
            rows[seed] = self._result(arm, seed, compiled_phases[seed], outcome)
            mirrors[seed].keep()
        return rows

    def _run(
        self, arm: Arm, seed: int, compiled_phases: Sequence[CompiledPhase], mirror: Mirror
    ) -> Run:
        """A run, ready to be trained."""
        evaluation = self.evaluation_for(seed)
        mlm = arm.trains_mlm_head
        return Run(
            compiled_phases,
            self.budget,
            start=self._start(arm, seed),
            seed=seed,
            config=self.config.train,
            directory=self._directory(arm.name, seed),
            upfront=self.costs[arm.name].upfront,
            cache_bytes=self.cache.manifest.bytes if arm.stored and self.cache else 0,
            repeats=self.config.data.regime != "unlimited",
            evaluate=lambda params: evaluation.along_the_way(arm.student, params, mlm=mlm),
            watch=self._reporter.track(f"{arm.name}, seed {seed}"),
            checkpoints=mirror.checkpoints,
            warn=self._reporter.warn,
            about=About(self._out.resolve().name, arm.name, seed, plain(to_dict(self.config))),
            peak=peak(self.layout.mesh.local_devices[0]),
        )

    def _result(
        self, arm: Arm, seed: int, compiled_phases: Sequence[CompiledPhase], outcome: Outcome
    ) -> dict[str, Any]:
        """Measures a run that was trained, and writes its files; a row of `results.json`."""
        directory = self._directory(arm.name, seed)
        ledger = outcome.ledger
        self._reporter.status(f"{arm.name}, seed {seed}: evaluating")
        clock = Stopwatch(ledger.seconds)
        with clock("evaluation"):
            metrics, details = self.evaluation_for(seed).measure(
                arm.student,
                outcome.params,
                seed,
                mlm=arm.trains_mlm_head,
                finetuning=pricing.finetuning_of(self.config, arm),
            )
        row = {
            "arm": arm.name,
            "seed": seed,
            "budget": asdict(self.budget),
            "used": ledger.used,
            "spent": {**ledger.spent, "total": sum(ledger.spent.values()), "charged": ledger.total},
            "cache_bytes": ledger.cache_bytes,
            "steps": ledger.steps,
            "phases": [
                {
                    "steps": steps,
                    "batch": compiled_phase.program.shape.batch_size,
                    "flops": steps * compiled_phase.price.total,
                }
                for steps, compiled_phase in zip(ledger.phases, compiled_phases, strict=True)
            ],
            "positions": ledger.positions,
            "tokens_seen": ledger.tokens,
            "tokens_unique": ledger.unique_tokens,
            "tokens_masked": ledger.masked_tokens,
            "epochs": ledger.positions / self.shape.seq_len / self.corpus.sequences("train"),
            "wall_clock": clock.seconds,
            "hardware": hardware_use(compiled_phases, ledger, outcome.side_by_side),
            "metrics": metrics,
            "details": details,
            "curve": outcome.curve,
            "params_sha256": outcome.params_sha256,
            "ledger_sha256": outcome.journal_sha256,
        }
        save_params(directory / "params.safetensors", outcome.params)
        write_json(directory / "result.json", row)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        self._reporter.log(
            f"{arm.name}, seed {seed}: {ledger.steps} steps, {ledger.total:.4g} FLOPs; {figures}"
        )
        return row

    def references(self) -> list[dict[str, Any]]:
        """The untrained starts of each seed and the teachers, measured like the runs: what the arms
        stand between."""
        starts: dict[Any, list[Arm]] = {}
        for arm in self.arms.values():
            starts.setdefault((arm.student, arm.start), []).append(arm)
        rows = []
        for n, sharing in enumerate(starts.values()):
            name = "untrained start" + (f" ({', '.join(arm.name for arm in sharing)})" if n else "")
            # By what it is, not by which arm came first: other arms may join a study.
            identity = [plain(to_dict(part)) for part in (sharing[0].student, sharing[0].start)]
            directory = f"untrained-{digest(identity)[:8]}"
            for seed in self.config.seeds:
                start = functools.partial(self._start, sharing[0], seed)
                evaluation = self.evaluation_for(seed)
                rows.append(
                    self._reference(
                        f"{directory}-seed{seed}", name, seed, sharing[0].student, start, evaluation
                    )
                )
        for teacher, evaluation in zip(self.teachers, self.evaluations, strict=False):
            own = teacher.seed if len(self.teachers) > 1 else None
            directory, name = (
                ("teacher", "teacher")
                if own is None
                else (f"teacher-seed{own}", f"teacher, seed {own}")
            )
            params = functools.partial(getattr, teacher.model, "params")
            rows.append(
                self._reference(directory, name, None, teacher.model.config, params, evaluation)
            )
        return rows

    def _reference(
        self,
        directory: str,
        name: str,
        seed: int | None,
        model: ModelConfig,
        make: Callable[[], Any],
        evaluation: Evaluation,
    ) -> dict[str, Any]:
        """A reference measured, or as it was measured before; only then are its parameters made."""
        path = self.places["references"] / directory / "result.json"
        if not path.exists():
            self._reporter.status(f"{name}: evaluating")
            params = make()
            is_teacher = seed is None
            mlm = is_teacher and "mlm" in params
            finetuning = None if is_teacher else self.config.evaluation.finetune
            with CLOCK("evaluation"):
                metrics, details = evaluation.measure(
                    model, params, seed or 0, mlm=mlm, finetuning=finetuning
                )
            write_json(path, {"metrics": metrics, "details": details})
        return {"name": name, "seed": seed, **read_json(path)}

    def _cost(self, arm: Arm) -> Cost:
        if arm.name in self._record.costs:
            return self._record.costs[arm.name]
        upfront = pricing.probe_charge(self.config, arm)
        if arm.stored:
            request = pricing.stored_by(self.arms)
            sequences = self.corpus.sequences("train")
            flops = pricing.cache_flops(self.config, request, sequences)
            upfront["teacher_cache"] = pricing.share(flops, pricing.sharing(self.config, self.arms))
        if arm.needs_teacher:
            # A teacher that is trained here costs what the recipe says, so that need not wait until
            # it is trained.
            trained_here = bool(self.config.teacher.train.budget)
            cost = cost_by_recipe(self.config) if trained_here else self.teachers[0].cost
            cost.check(self.config.budget.teacher)
            upfront["teacher_training"] = pricing.share(
                cost.charged_to(arm), self.config.budget.students
            )
        return Cost(self._prices[arm.name], upfront)

    def _lay_out(
        self, arm: Arm, prices: tuple[Price, ...], upfront: Mapping[str, int] | None = None
    ) -> tuple[PhaseSpan, ...]:
        if not self.budget.countable:
            return ()
        return arm.schedule_phases(self.budget, prices, self.shape, upfront)

    def _start(self, arm: Arm, seed: int) -> Any:
        """The student's parameters before the first step."""
        teacher = self.teacher_for(seed)
        return start_params(arm.start, arm.student, teacher.model if teacher else None, seed)

    def _legs(self, arm: Arm, seeds: Sequence[int]) -> dict[int, list[CompiledPhase]]:
        """Seed -> the phases of its run, compiled for all of them side by side; the teacher is
        placed once.

        All seeds learn from the teacher of the first, unless the arm looks at none.
        """
        if arm.name not in self._compiled:
            self._compiled.add(arm.name)
            self._reporter.status(f"{arm.name}: compiling")
        train = self.config.train
        made = {seed: list[CompiledPhase]() for seed in seeds}
        taught_by = self.teacher_for(seeds[0])
        for phase, cost in zip(arm.phases, self.costs[arm.name].prices, strict=True):
            shape = phase.shape(self.shape)
            program = program_of(
                phase, shape, self.layout, train.grad_accum_steps, train.compute, len(seeds)
            )
            cache = self.cache if isinstance(phase.teacher_source, CachedTeacher) else None
            teacher = program.place_teacher(taught_by.model.params if taught_by else None)
            for seed, compiled_phases in made.items():
                stream = corpora.train_batches(
                    self.config, self.corpus, shape.batch_size, seed, cache=cache
                )
                compiled_phases.append(CompiledPhase(phase, program, cost, stream, teacher))
        return made

    def _directory(self, arm: str, seed: int) -> Path:
        return self._out / "runs" / f"{arm}-seed{seed}"

    def _claim_run(self, directory: Path, arm: str, seed: int, mirror: Mirror) -> None:
        """Writes the run's manifest, or checks that the one there, and the one kept elsewhere, is
        this run's."""
        path = directory / "manifest.json"
        kept = mirror.manifest()
        teacher = self.teacher_for(seed) if self.arms[arm].needs_teacher else None
        identity = {
            "arm": arm,
            "seed": seed,
            "arm_settings": plain(to_dict(self.arms[arm].config)),
            "cost": self.costs[arm].to_json(),
            "budget": plain(asdict(self.budget)),
            "corpus": self.corpus.digest,
            "texts": {name: text.digest for name, text in self.texts.items()},
            "teacher": teacher.facts if teacher else None,
            "config": plain(to_dict(self.config)),
        }
        here: Any = read_json(path) if path.exists() else None
        _check_run(path, here, identity, "--out")
        _check_run(mirror.place, kept, identity, "train.checkpoint.directory")
        manifest = here or kept or {**identity, **versions()}
        if here is None:
            write_json(path, manifest)
        mirror.claim(manifest)


def _sequences(spans: Sequence[PhaseSpan], shape: BatchShape) -> int:
    """How many sequences a run reads."""
    return sum(one.steps * one.tokens_per_step for one in spans) // shape.seq_len


def _check_run(place: Any, found: Any, identity: Mapping[str, Any], setting: str) -> None:
    """Raises InputError unless the manifest found in a place, if any, is of the same run."""
    if not found:
        return
    for name in ("arm_settings", "cost", "budget", "corpus", "texts", "teacher"):
        difference = first_difference(found[name], identity[name], name)
        if difference:
            which, before, now = difference
            raise InputError(
                f"{place}: this run's {which} is {before!r}, expected {now!r}; use another "
                f"{setting}"
            )
