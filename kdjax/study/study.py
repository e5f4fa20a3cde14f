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
from kdjax.budget.ledger import Stretch
from kdjax.budget.price import Price
from kdjax.clock import CLOCK
from kdjax.config import Config, ModelConfig, plain, to_dict
from kdjax.data import tasks
from kdjax.data.cache import Cache
from kdjax.data.corpus import Corpus
from kdjax.data.tasks import Task
from kdjax.errors import InputError
from kdjax.evaluate.mlm_probe import MlmProbe
from kdjax.files import digest, read_json, write_json
from kdjax.models import zoo
from kdjax.parallel import hosts
from kdjax.parallel.layout import Layout, local
from kdjax.study import corpus as corpora
from kdjax.study import pricing, stored, tuned
from kdjax.study import teacher as teachers
from kdjax.study.evaluation import Evaluation
from kdjax.study.groups import groups
from kdjax.study.machine import hardware_use, versions
from kdjax.study.mirror import Mirror
from kdjax.study.places import places
from kdjax.study.pricing import arms_of, shape_of
from kdjax.study.progress import Reporter
from kdjax.study.record import Cost, Record
from kdjax.train.arm import Arm
from kdjax.train.checkpoint import save_params
from kdjax.train.log import About, Stopwatch, check_log
from kdjax.train.loop import train
from kdjax.train.phase import Shape, price
from kdjax.train.program import program_of
from kdjax.train.run import Leg, Outcome, Run
from kdjax.train.signal import Cached
from kdjax.train.start import start_params


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
        self.config, self._out, self._reporter, self.places = config, out, reporter, places(config, out, shared)
        self.arms, self.shape, self.budget = arms_of(config), shape_of(config), Budget.of(config.budget)
        check_log(config.train.log)
        self._record = Record(config, out)
        self._prices = {
            name: self._record.costs[name].prices
            if name in self._record.costs
            else tuple(price(phase, phase.shape(self.shape)) for phase in arm.phases)
            for name, arm in self.arms.items()
        }
        for arm in self.arms.values():
            self._lay_out(arm, self._prices[arm.name], pricing.probe_charge(config, arm))
        self._needs_teacher = any(arm.needs_teacher for arm in self.arms.values())
        self.layout = Layout.of(config.train.mesh)
        for batch in (self.shape.batch, *(one.batch for one in config.train.ramp)):
            self.layout.check_batch(batch, config.train.microbatches)

    @cached_property
    def corpus(self) -> Corpus:
        """The prepared corpus."""
        with CLOCK("text"):
            return corpora.corpus_of(self.config, self.places["data"], self._reporter)

    @cached_property
    def teacher(self) -> teachers.Teacher | None:
        """The teacher, when an arm looks at one."""
        if not self._needs_teacher:
            return None
        corpus = self.corpus
        with CLOCK("teacher", whole=True):
            return teachers.teacher_of(self.config, corpus, self.places["teacher"], self.layout, self._reporter)

    @cached_property
    def cache(self) -> Cache | None:
        """The teacher's stored outputs, when an arm reads them."""
        request = pricing.stored_by(self.arms)
        if not request or self.teacher is None:
            return None
        teacher, corpus = self.teacher.model, self.corpus
        with CLOCK("stored outputs", whole=True):
            return stored.cache_of(self.config, request, teacher, corpus, self.places["cache"], local(), self._reporter)

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Arm -> what its runs cost, as counted when the study first started."""
        return {name: self._cost(arm) for name, arm in self.arms.items()}

    @cached_property
    def stretches(self) -> dict[str, tuple[Stretch, ...]]:
        """Arm -> its phases as they lie in the budget; empty where a clock decides."""
        return {
            name: self._lay_out(arm, self.costs[name].prices, self.costs[name].upfront)
            for name, arm in self.arms.items()
        }

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The downstream tasks."""
        tokenizer, length = corpora.tokenizer_of(self.config), self.config.data.length
        with CLOCK("text"):
            return tuple(
                tasks.load(name, task, tokenizer, length) for name, task in self.config.evaluation.tasks.items()
            )

    @cached_property
    def evaluation(self) -> Evaluation:
        """What every model is measured by."""
        student = zoo.resolve(self.config.student)
        teacher = self.teacher.model if self.teacher else None
        if teacher is not None and teacher.config.vocab_size != student.vocab_size:
            teacher = None
        held_out = corpora.held_out(self.config, self.corpus, teacher)
        texts = {name: corpora.held_out(self.config, text) for name, text in self.texts.items()}
        return Evaluation(self.config.evaluation, held_out, self.tasks, texts, self.mlm_probe)

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
                name: corpora.text_of(self.config, name, self.places["texts"] / name)
                for name in self.config.evaluation.texts
            }

    def claim(self) -> None:
        """Makes all that runs need, then takes the directory for this recipe; the costs stored now hold for good."""
        tuned.tuning_of(self.config)
        _ = self.tasks
        if self._needs_teacher and self._record.new:
            with CLOCK("teacher", whole=True):
                teachers.check_teacher(self.config, self.layout)
        corpora.train_batches(self.config, self.corpus, self.shape.batch, seed=0)
        for arm in self.arms.values():
            if self.teacher is not None:
                for phase in arm.phases:
                    phase.teacher_part(self.teacher.model.params)
        for name, stretches in self.stretches.items():  # before the cache is made: its share may exceed the budget
            if stretches:
                corpora.check_regime(self.config, self.corpus, name, _sequences(stretches, self.shape))
        _ = self.cache, self.evaluation
        hosts.check_same(
            {
                "corpus": self.corpus.digest,
                "teacher": self.teacher.facts if self.teacher else None,
                "costs": {name: cost.to_json() for name, cost in self.costs.items()},
                "texts": {name: text.digest for name, text in self.texts.items()},
            }
        )
        self._record.write(self.costs)

    @property
    def left(self) -> float:
        """What its unfinished runs may still spend, in the budget's unit."""
        return self.budget.amount * sum(not self.finished(a, seed) for seed in self.config.seeds for a in self.arms)

    def finished(self, arm: str, seed: int) -> bool:
        """Whether a run has its result."""
        return (self._directory(arm, seed) / "result.json").exists()

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """One run to its end, however far it had come; a row of `results.json`.

        Raises:
            InputError: the loss is not finite, a checkpoint is damaged, or the directory holds another run.
        """
        (row,) = self.run_together(arm, (seed,))
        return row

    def run_all(self, runs: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """Runs to their end, as many of an arm at once as the recipe says; their rows in the order given.

        Args:
            runs: arm and seed of each.
        """
        at_once = self.config.train.seeds_at_once if self.budget.countable else 1
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for arm, seeds in groups(runs, at_once):
            rows |= zip([(arm, seed) for seed in seeds], self.run_together(arm, seeds), strict=True)
        return [rows[one] for one in runs]

    def run_together(self, arm: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Runs of an arm to their end, however far each had come: those that are not finished go side by side.

        Raises:
            InputError: as `run`; a budget of hours with several.
        """
        rows, mirrors = {}, {}
        for seed in seeds:
            directory = self._directory(arm, seed)
            mirrors[seed] = mirror = Mirror(self.config.train.checkpoint.directory, directory)
            self._claim_run(directory, arm, seed, mirror)
            mirror.bring()
            if hosts.agreed(self.finished(arm, seed)):
                mirror.keep()
                rows[seed] = hosts.agreed(read_json(directory / "result.json") if hosts.lead() else None)
        left = [seed for seed in seeds if seed not in rows]
        rows |= self._trained(self.arms[arm], left, mirrors) if left else {}
        return [rows[seed] for seed in seeds]

    def _trained(self, arm: Arm, seeds: Sequence[int], mirrors: Mapping[int, Mirror]) -> dict[int, dict[str, Any]]:
        """Seed -> the row of its run, trained side by side with the others."""
        legs, rows = self._legs(arm, seeds), {}
        outcomes = train(*(self._run(arm, seed, legs[seed], mirrors[seed]) for seed in seeds))
        for seed, outcome in zip(seeds, outcomes, strict=True):
            rows[seed] = self._result(arm, seed, legs[seed], outcome)
            mirrors[seed].keep()
        return rows

    def _run(self, arm: Arm, seed: int, legs: Sequence[Leg], mirror: Mirror) -> Run:
        """A run, ready to be trained."""
        evaluation, mlm = self.evaluation, arm.trains_mlm_head
        return Run(
            legs,
            self.budget,
            start=self._start(arm, seed),
            seed=seed,
            config=self.config.train,
            directory=self._directory(arm.name, seed),
            upfront=self.costs[arm.name].upfront,
            cache_bytes=self.cache.manifest.bytes if arm.stored and self.cache else 0,
            repeats=self.config.data.regime != "unlimited",
            evaluate=lambda params: evaluation.along_the_way(arm.student, params, mlm=mlm),
            watch=self._reporter.watch(f"{arm.name}, seed {seed}"),
            checkpoints=mirror.checkpoints,
            warn=self._reporter.warn,
            about=About(self._out.resolve().name, arm.name, seed, plain(to_dict(self.config))),
            peak=peak(self.layout.mesh.local_devices[0]),
        )

    def _result(self, arm: Arm, seed: int, legs: Sequence[Leg], outcome: Outcome) -> dict[str, Any]:
        """Measures a run that was trained, and writes its files; a row of `results.json`."""
        directory, ledger = self._directory(arm.name, seed), outcome.ledger
        self._reporter.show(f"{arm.name}, seed {seed}: evaluating")
        clock = Stopwatch(ledger.seconds)
        with clock("evaluation"):
            metrics, details = self.evaluation.measure(
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
                {"steps": steps, "batch": leg.program.shape.batch, "flops": steps * leg.price.total}
                for steps, leg in zip(ledger.phases, legs, strict=True)
            ],
            "positions": ledger.positions,
            "tokens_seen": ledger.tokens,
            "tokens_unique": ledger.unique_tokens,
            "tokens_masked": ledger.masked_tokens,
            "epochs": ledger.positions / self.shape.length / self.corpus.sequences("train"),
            "wall_clock": clock.seconds,
            "hardware": hardware_use(legs, ledger, outcome.side_by_side),
            "metrics": metrics,
            "details": details,
            "curve": outcome.curve,
            "params_sha256": outcome.params_sha256,
            "ledger_sha256": outcome.journal_sha256,
        }
        save_params(directory / "params.safetensors", outcome.params)
        write_json(directory / "result.json", row)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        self._reporter.say(f"{arm.name}, seed {seed}: {ledger.steps} steps, {ledger.total:.4g} FLOPs; {figures}")
        return row

    def references(self) -> list[dict[str, Any]]:
        """The untrained starts of each seed and the teacher, measured like the runs: what the arms stand between."""
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
                rows.append(self._reference(f"{directory}-seed{seed}", name, seed, sharing[0].student, start))
        if self.teacher is not None:
            model, params = self.teacher.model
            rows.append(self._reference("teacher", "teacher", None, model, lambda: params))
        return rows

    def _reference(
        self, directory: str, name: str, seed: int | None, model: ModelConfig, make: Callable[[], Any]
    ) -> dict[str, Any]:
        """A reference measured, or as it was measured before; only then are its parameters made."""
        path = self.places["references"] / directory / "result.json"
        if not path.exists():
            self._reporter.show(f"{name}: evaluating")
            params = make()
            is_teacher = seed is None
            mlm = is_teacher and "mlm" in params
            finetuning = None if is_teacher else self.config.evaluation.finetune
            evaluation = self.evaluation
            with CLOCK("evaluation"):
                metrics, details = evaluation.measure(model, params, seed or 0, mlm=mlm, finetuning=finetuning)
            write_json(path, {"metrics": metrics, "details": details})
        return {"name": name, "seed": seed, **read_json(path)}

    def _cost(self, arm: Arm) -> Cost:
        if arm.name in self._record.costs:
            return self._record.costs[arm.name]
        upfront = pricing.probe_charge(self.config, arm)
        if arm.stored:
            request, sequences = pricing.stored_by(self.arms), self.corpus.sequences("train")
            flops = pricing.cache_flops(self.config, request, sequences)
            upfront["teacher_cache"] = pricing.share(flops, pricing.sharing(self.config, self.arms))
        if arm.needs_teacher and self.teacher is not None:
            if self.config.budget.teacher in ("training", "both") and not self.teacher.training_flops:
                raise InputError(
                    f"budget.teacher is {self.config.budget.teacher!r} and what training the teacher cost is not "
                    "known, expected teacher.training_flops, or a teacher whose card says it"
                )
            cost = self.teacher.training_flops + (self.teacher.head_flops if arm.uses_head else 0)
            upfront["teacher_training"] = pricing.share(cost, self.config.budget.students)
        return Cost(self._prices[arm.name], upfront)

    def _lay_out(
        self, arm: Arm, prices: tuple[Price, ...], upfront: Mapping[str, int] | None = None
    ) -> tuple[Stretch, ...]:
        if not self.budget.countable:
            return ()
        return arm.lay_out(self.budget, prices, self.shape, upfront)

    def _start(self, arm: Arm, seed: int) -> Any:
        """The student's parameters before the first step."""
        return start_params(arm.start, arm.student, self.teacher.model if self.teacher else None, seed)

    def _legs(self, arm: Arm, seeds: Sequence[int]) -> dict[int, list[Leg]]:
        """Seed -> the phases of its run, compiled for all of them side by side; the teacher is placed once."""
        self._reporter.show(f"{arm.name}: compiling")
        train, made = self.config.train, {seed: list[Leg]() for seed in seeds}
        for phase, cost in zip(arm.phases, self.costs[arm.name].prices, strict=True):
            shape = phase.shape(self.shape)
            program = program_of(phase, shape, self.layout, train.microbatches, train.compute, len(seeds))
            cache = self.cache if isinstance(phase.signal, Cached) else None
            teacher = program.place_teacher(self.teacher.model.params if self.teacher else None)
            for seed, legs in made.items():
                stream = corpora.train_batches(self.config, self.corpus, shape.batch, seed, cache=cache)
                legs.append(Leg(phase, program, cost, stream, teacher))
        return made

    def _directory(self, arm: str, seed: int) -> Path:
        return self._out / "runs" / f"{arm}-seed{seed}"

    def _claim_run(self, directory: Path, arm: str, seed: int, mirror: Mirror) -> None:
        """Writes the run's manifest, or checks that the one there, and the one kept elsewhere, is this run's."""
        path, kept = directory / "manifest.json", mirror.manifest()
        identity = {
            "arm": arm,
            "seed": seed,
            "arm_settings": plain(to_dict(self.arms[arm].config)),
            "cost": self.costs[arm].to_json(),
            "budget": plain(asdict(self.budget)),
            "corpus": self.corpus.digest,
            "texts": {name: text.digest for name, text in self.texts.items()},
            "teacher": self.teacher.facts if self.teacher and self.arms[arm].needs_teacher else None,
            "config": plain(to_dict(self.config)),
        }
        here: Any = read_json(path) if path.exists() else None
        _check_run(path, here, identity, "--out")
        _check_run(mirror.place, kept, identity, "train.checkpoint.directory")
        manifest = here or kept or {**identity, **versions()}
        if here is None:
            write_json(path, manifest)
        mirror.claim(manifest)


def _sequences(stretches: Sequence[Stretch], shape: Shape) -> int:
    """How many sequences a run reads."""
    return sum(one.steps * one.positions for one in stretches) // shape.length


def _check_run(place: Any, found: Any, identity: Mapping[str, Any], setting: str) -> None:
    """Raises InputError unless the manifest found in a place, if any, is of the same run."""
    for name in ("arm_settings", "cost", "budget", "corpus", "texts", "teacher") if found else ():
        if found[name] != identity[name]:
            raise InputError(
                f"{place}: this run's {name} is {found[name]!r}, expected {identity[name]!r}; use another {setting}"
            )
