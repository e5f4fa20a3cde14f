"""The audit of a study: prices, text, teacher, stored outputs, runs and verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import kdjax
from kdjax.audit.counts import Counts
from kdjax.audit.findings import WRITTEN, AuditFindings, shared_part
from kdjax.audit.run import RunAudit
from kdjax.audit.teacher import TeacherAudit
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import schedule_phases
from kdjax.config import Config, plain, to_dict
from kdjax.data.corpus import Corpus, regime_of
from kdjax.data.manifest import Manifest
from kdjax.data.prepare.reference_losses import compute
from kdjax.data.text import sources
from kdjax.dry_run.arms import arms_of, shape_of
from kdjax.dry_run.charges import cache_flops, probe_charge, share, sharing, stored_by
from kdjax.dry_run.teacher_cost import TeacherCost
from kdjax.files import digest
from kdjax.models import zoo
from kdjax.recipes import from_dict
from kdjax.results.store import from_plain, results_of, to_plain
from kdjax.results.teacher import TeacherFacts
from kdjax.results.text import CorpusFacts
from kdjax.results.tuning import Tuning
from kdjax.study import manifest as study_manifest
from kdjax.study.artifact_dirs import artifact_dirs
from kdjax.study.batches import train_batches
from kdjax.study.machine import versions
from kdjax.study.manifest import Cost
from kdjax.study.results import corpus_facts, judge, teacher_facts
from kdjax.study.tuned import tuning_of
from kdjax.teacher_cache.manifest import CacheManifest
from kdjax.training.arm import Arm
from kdjax.training.checksum import sha256
from kdjax.training.phase import BatchShape, price
from kdjax.training.teacher_directories import (
    CARD,
    read_card,
    read_teacher,
    seed_directory,
    source_directories,
)
from kdjax.training.teacher_head import head_phase
from kdjax.training.teacher_pretraining import stream_seed

RESULTS = "results.json"

COUNTED = 64
"""Sequences whose tokens are counted at once."""


class StudyAudit:
    """A study's directory, held against its recipe."""

    config: Config
    arms: dict[str, Arm]
    artifact_dirs: dict[str, Path]
    shape: BatchShape
    budget: Budget

    def __init__(self, out: Path, shared: Path | None, findings: AuditFindings):
        self._out = out
        self._shared = shared
        self._findings = findings
        self.corpus: Corpus | None = None
        self.cache: CacheManifest | None = None
        self.costs: dict[str, Cost] = {}
        self._note = ""
        self._prices = 0
        self._entries = 0

    def audit(self) -> dict[str, Any]:
        """Audit all of it; return the content of results.json."""
        findings = self._findings
        runs = self._out / "runs"
        self._results = findings.read(self._out / RESULTS)
        self._stored = findings.read(self._out / study_manifest.NAME)
        manifests = [findings.read(path) for path in sorted(runs.glob("*/manifest.json"))]
        configs = [manifest.get("config") for manifest in manifests]
        self._recipes = [config for config in configs if isinstance(config, dict)]

        # Without a recipe there is nothing to hold anything against.
        try:
            self.config = from_dict(plain(self._recipe()))
            self.arms = arms_of(self.config)
            self.shape = shape_of(self.config)
            self.budget = Budget.of(self.config.budget)
        except Exception as error:
            findings.add(self._out / RESULTS, f"a recipe that cannot be used ({error})", WRITTEN)
            return self._results
        self.artifact_dirs = artifact_dirs(self.config, self._out, self._shared)
        self.facts = self._results.get("teacher")

        # Under another JAX prices may differ by a fraction of a per cent, and all else follows from
        # those that were recorded.
        recorded_under = {str(file["jax"]) for file in (self._results, *manifests) if "jax" in file}
        others = ", ".join(sorted(recorded_under - {jax.__version__}))
        if others:
            self._note = f" (JAX {jax.__version__}; recorded under {others})"
        path = self._out / study_manifest.NAME
        with findings.record_errors(path):
            stored = self._stored.get("config", {})
            expected = shared_part(plain(to_dict(self.config)), stored)
            findings.expect_equal(path, stored, expected, "config")

        # What runs share, then what each arm costs, then each run.
        self._read_corpus()
        self._read_teacher()
        self._read_cache()
        for name, arm in self.arms.items():
            with findings.record_errors(path):
                self.costs[name] = self._cost(arm)
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for name, seed in itertools.product(self.costs, self.config.seeds):
            directory = runs / f"{name}-seed{seed}"
            with findings.record_errors(directory):
                run = RunAudit(self, self.arms[name], seed, directory, findings)
                run.audit()
                rows[name, seed] = run.result
                self._entries += run.entries
        self._audit_results(rows)

        # Counts tell a clean result from an audit that looked at nothing.
        tokens = "counted"
        if self.corpus is None:
            tokens = f"not counted, there is no whole text in {self._text}"
        findings.lines.append(
            f"{self._out}: worked out again: prices {self._prices}, runs {len(rows)}, ledger "
            f"entries {self._entries}, verdicts {len(self._results.get('verdicts', ()))}; tokens "
            f"{tokens}"
        )
        return self._results

    def _recipe(self) -> dict[str, Any]:
        """Read the recipe from results.json.

        Where that does not match its digest, it is a run's but for arms and seeds.
        """
        config = self._results.get("config")
        of_runs = next(iter(self._recipes), {})
        if not isinstance(config, dict):
            return of_runs
        if digest(config) == self._results.get("config_digest") or not of_runs:
            return config
        joined = {name: config[name] for name in ("arms", "seeds") if name in config}
        return {**of_runs, **joined}

    def _read_corpus(self) -> None:
        """Open the text, where it is still there."""
        self._text = Path(self.config.data.prepared or self.artifact_dirs["data"])
        if not self._text.exists():
            return
        with self._findings.record_errors(self._text):
            if self._findings.intact(self._text, Manifest.read(self._text).shards):
                self.corpus = regime_of(self.config.data, Corpus.open(self._text))

    def _read_teacher(self) -> None:
        """Audit the teacher's recorded facts, and what fitting its head cost."""
        if not any(arm.needs_teacher for arm in self.arms.values()):
            return
        if self.config.teacher.train.budget:
            self._read_trained_teachers()
            return
        config = self.config
        head = config.teacher.head
        path = self._out / RESULTS
        name = "teacher"
        # A teacher that got its head here has a card of its own.
        if head.budget and self.artifact_dirs["teacher"].exists():
            path = self.artifact_dirs["teacher"] / CARD
            name = ""
            self.facts = self._findings.read(path) or self.facts
        with self._findings.record_errors(path):
            if self.facts is None or not sources.locate(config.teacher.source).exists():
                return

            # What the source's card says was spent before this study, and on top of that the head:
            # its steps follow from its budget and the price of one.
            directory = source_directories(config)[0].path
            before = TeacherCost.of_facts(read_card(directory))
            expected: dict[str, Any] = {
                "training_flops": int(config.teacher.training_flops) or before.training,
                "tuning_flops": before.tuning,
                "head_flops": before.head,
            }
            if head.budget:
                shape = BatchShape(
                    head.batch_size, config.data.seq_len, config.data.max_predictions
                )
                cost = price(head_phase(zoo.resolve(config.teacher.architecture), head), shape)
                (fit,) = schedule_phases(
                    Budget.flops(head.budget), [(1.0, cost)], shape.tokens_per_step
                )
                account = "tuning_flops" if head.encoder == "tuned" else "head_flops"
                expected[account] += fit.steps * cost.total
                expected["head_steps"] = fit.steps
                if counts := self.counts(0):
                    expected["head_tokens"] = counts.at(fit.steps * head.batch_size)["tokens"]
                self._prices += 1
            facts = {fact: self.facts.get(fact, 0) for fact in expected}
            self._findings.expect_equal(path, facts, expected, name, self._note)
            self._audit_weights(path, name)

    def _audit_weights(self, path: Path, name: str) -> None:
        """Compare the weights of teachers that were not trained here with their recorded hashes."""
        facts = self.facts or {}
        directories = [source.path for source in source_directories(self.config)]
        if self.config.teacher.head.budget:
            directories = [self.artifact_dirs["teacher"]]
        teachers = facts.get("teachers", [facts])
        for directory, teacher in zip(directories, teachers, strict=True):
            if "params_sha256" not in teacher or not directory.exists():
                continue
            weights = sha256(read_teacher(directory).params)
            field = f"{name}.params_sha256".lstrip(".")
            self._findings.expect_equal(path, teacher["params_sha256"], weights, field)

    def _read_trained_teachers(self) -> None:
        """Audit the teachers that the study trained: their ledgers, checkpoints and cards."""
        directory = self.artifact_dirs["teacher"]
        if not directory.exists():
            return
        cards = []
        for seed in sorted(self.config.teacher.train.seeds):
            with self._findings.record_errors(directory / f"seed{seed}"):
                teacher = TeacherAudit(
                    self.config, seed_directory(directory, seed), seed, self._findings, self._note
                )
                teacher.audit(
                    self.corpus.digest if self.corpus else None, self.counts(stream_seed(seed))
                )
                self._prices += 1
                self._entries += teacher.entries
                cards.append(teacher.card)
        # Students' charges follow from the cards, not from what results.json has of them.
        if all(cards):
            self.facts = to_plain(teacher_facts(cards))

    def facts_for(self, seed: int) -> Mapping[str, Any] | None:
        """Return the facts of the teacher that the student of a seed learns from."""
        facts = self.facts or {}
        teachers: list[Mapping[str, Any]] = facts.get("teachers") or [self.facts]
        return teachers[seed % len(teachers)]

    def _read_cache(self) -> None:
        """Audit the stored teacher outputs: their bytes, and the FLOPs of making them."""
        if not stored_by(self.arms):
            return
        directory = Path(self.config.cache.source or self.artifact_dirs["cache"])
        if not directory.exists():
            return
        with self._findings.record_errors(directory):
            self.cache = manifest = CacheManifest.read(directory)
            self._findings.intact(directory, manifest.shards)
            expected = {
                "bytes": sum(shard.bytes for shard in manifest.shards),
                "flops": self._cache_flops(),
            }
            recorded = {"bytes": manifest.bytes, "flops": manifest.totals["flops"]}
            self._findings.expect_equal(directory, recorded, expected, note=self._note)

    def _cache_flops(self) -> int:
        """Return what storing the teacher's outputs cost."""
        return cache_flops(self.config, stored_by(self.arms), self.sequences)

    @property
    def sequences(self) -> int:
        """Return the sequences of the training split."""
        if self.corpus is not None:
            return self.corpus.sequences("train")
        return int(self._results["corpus"]["sequences"]["train"])

    def _cost(self, arm: Arm) -> Cost:
        """Compute what a run of an arm costs; under another JAX than the study's, as recorded."""
        counted = [price(phase, phase.shape(self.shape)) for phase in arm.phases]
        self._prices += len(counted)
        recorded = self._stored["costs"][arm.name] if self._stored else {}
        cost = Cost(tuple(counted), self._upfront(arm, recorded.get("upfront", {})))
        if recorded:
            self._findings.expect_equal(
                self._out / study_manifest.NAME,
                recorded,
                cost.to_json(),
                f"costs.{arm.name}",
                self._note,
            )
            if self._note:
                return Cost.from_json(recorded)
        return cost

    def _upfront(self, arm: Arm, stored: Mapping[str, int]) -> dict[str, int]:
        """Sum the FLOPs charged before the first step: probe, stored outputs and teacher."""
        upfront = probe_charge(self.config, arm)
        if arm.stored:
            # Arms and seeds may have joined since the share was fixed: any share that follows from
            # the recipe of one of the runs is right.
            recipes = {digest(values): values for values in self._recipes}
            recipes.pop(digest(plain(to_dict(self.config))), None)
            known = [self.config, *(from_dict(plain(values)) for values in recipes.values())]
            flops = self._cache_flops()
            shares = [share(flops, sharing(config, arms_of(config))) for config in known]
            recorded = stored.get("teacher_cache", 0)
            upfront["teacher_cache"] = recorded if recorded in shares else shares[0]
        if arm.needs_teacher and self.facts:
            cost = TeacherCost.of_facts(self.facts).charged_to(arm)
            upfront["teacher_training"] = share(cost, self.config.budget.students)
        return upfront

    def counts(self, seed: int) -> Counts | None:
        """Return the tokens of the text in a seed's order; None where the text is not there."""
        if self.corpus is None:
            return None
        data = self.config.data
        corpus = self.corpus
        key = (
            corpus.directory,
            corpus.digest,
            seed,
            data.mlm_probability,
            data.max_predictions,
            data.mask_copies,
        )
        if key not in self._findings.counts:
            self._findings.counts[key] = Counts(
                train_batches(self.config, corpus, min(COUNTED, corpus.sequences("train")), seed)
            )
        return self._findings.counts[key]

    def run_config(self) -> dict[str, Any]:
        """Return the part of the recipe that all runs of the study share."""
        shared: dict[str, Any] = shared_part(
            plain(to_dict(self.config)), self._stored.get("config", {})
        )
        return shared

    def _audit_results(self, runs: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        """Audit results.json: its rows are the runs', and all else follows from them."""
        path = self._out / RESULTS
        content = self._results
        findings = self._findings
        if not content:
            return
        with findings.record_errors(path):
            # Its rows are those of the runs and of the references.
            recorded_runs = [[row["arm"], row["seed"]] for row in content["runs"]]
            pairs = itertools.product(self.config.seeds, self.arms)
            findings.expect_equal(
                path, recorded_runs, [[name, seed] for seed, name in pairs], "runs"
            )
            for n, (name, seed) in enumerate(recorded_runs):
                if run := runs.get((name, seed)):
                    findings.expect_equal(path, content["runs"][n], run, f"runs.{n}")
            directory = self.artifact_dirs["references"]
            measured = [findings.read(file) for file in sorted(directory.glob("*/result.json"))]
            for n, row in enumerate(content["references"]):
                if {"metrics": row["metrics"], "details": row["details"]} not in measured:
                    place = f"{path}: references.{n}"
                    findings.add(place, row["metrics"], f"those of one in {directory}")
            endpoints = [
                _endpoint(row["name"], row["better"], row["arms"]) for row in content["endpoints"]
            ]
            findings.expect_equal(path, endpoints, self._endpoints(), "endpoints")

            # All else follows from rows, recipe, text and teacher.
            recorded = results_of(content, path)
            teacher = None
            if self.facts:
                teacher = from_plain(TeacherFacts, dict(self.facts), f"{path}: teacher")
            rebuilt = judge(
                self.config,
                self.arms,
                self.costs,
                recorded.runs,
                recorded.references,
                corpus=self._corpus_facts(recorded.corpus),
                endpoints=recorded.endpoints,
                teacher=teacher,
                cache=self.cache,
                tuning=self._tuning(recorded.tuning),
                wall_clock=recorded.wall_clock,
            )
            expected = without_versions(to_plain(rebuilt))
            values = without_versions(to_plain(recorded))
            # Another version may have other words, and without its cache nobody knows its facts.
            if recorded.kdjax != kdjax.__version__:
                expected |= {name: values[name] for name in ("differences", "same", "notes")}
            if stored_by(self.arms) and not self.cache:
                expected |= {name: values[name] for name in ("cache", "notes")}
            findings.expect_equal(path, values, expected)

    def _tuning(self, recorded: Tuning | None) -> Tuning | None:
        """Return how the arms were tuned; as recorded where the tuning's file is gone."""
        if self.config.tuning and not Path(self.config.tuning).exists():
            return recorded
        return tuning_of(self.config)

    def _corpus_facts(self, recorded: CorpusFacts) -> CorpusFacts:
        """Return the facts of all texts; as recorded where one of them is gone."""
        texts = {name: self.artifact_dirs["texts"] / name for name in self.config.evaluation.texts}
        if self.corpus is None or not all(directory.exists() for directory in texts.values()):
            return recorded
        opened = {name: Corpus.open(directory) for name, directory in texts.items()}
        # The text's own cross-entropies are counted again.
        return corpus_facts(self.config, self.corpus, compute(self.corpus), opened)

    def _endpoints(self) -> list[dict[str, Any]]:
        """Return what the recipe measures, on which arms, and which way is better."""
        evaluation = self.config.evaluation
        arms = list(self.arms)
        with_head = [name for name, arm in self.arms.items() if arm.trains_mlm_head]
        texts = ["", *(f".{name}" for name in evaluation.texts)]
        endpoints = [_endpoint(f"mlm_loss{text}", "lower", with_head) for text in texts]
        if evaluation.mlm_probe.tokens:
            endpoints += [_endpoint(f"mlm_probe{text}", "lower", arms) for text in texts]
        endpoints += [_endpoint(f"probe.{task}", "higher", arms) for task in evaluation.tasks]
        if evaluation.finetune.steps:
            endpoints += [
                _endpoint(f"finetune.{task}", "higher", arms) for task in evaluation.tasks
            ]
        return endpoints


def _endpoint(name: str, better: str, arms: list[str]) -> dict[str, Any]:
    """Return those fields of an endpoint in results.json that follow from the recipe alone."""
    return {"name": name, "better": better, "arms": arms}


def without_versions(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results without versions and wall-clock, which no recipe tells."""
    left_out = {*versions(), "wall_clock"}
    return {name: value for name, value in results.items() if name not in left_out}
