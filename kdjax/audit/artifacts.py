"""The audit of what a study's runs share: text, teacher and stored teacher outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.arms.charges import cache_flops, stored_features
from kdjax.arms.teacher_cost import TeacherCost
from kdjax.audit.counts import Counts
from kdjax.audit.recorded import RecordedStudy
from kdjax.audit.teacher import TeacherAudit
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import schedule_phases
from kdjax.data.corpus import Corpus, apply_regime
from kdjax.data.manifest import Manifest
from kdjax.data.mask_rate import MaskRate
from kdjax.models import zoo
from kdjax.storage import hub
from kdjax.storage.paths import local_path
from kdjax.storage.typed_json import to_plain
from kdjax.study.judgement.facts import teacher_facts
from kdjax.text import sources
from kdjax.training.checksum import sha256
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price
from kdjax.training.teacher.directories import (
    CARD,
    read_card,
    read_teacher,
    seed_directory,
    source_directories,
)
from kdjax.training.teacher.head import head_phase
from kdjax.training.teacher.pretraining import stream_seed
from kdjax.training.teacher_cache.manifest import CacheManifest

Facts = Mapping[str, Any]
"""A teacher's facts, as results.json or its card has them."""


@dataclass(frozen=True)
class AuditedArtifacts:
    """What a study's runs share, as far as it is still there.

    Attributes:
        study: the study.
        corpus: the text that its runs see; None where it is gone.
        teacher: facts of the teacher, or of all together; None where there are none.
        cache: manifest of the stored teacher outputs; None where there are none.
    """

    study: RecordedStudy
    corpus: Corpus | None
    teacher: Facts | None
    cache: CacheManifest | None

    @property
    def sequences(self) -> int:
        """Return the number of sequences of the training split."""
        return _sequences(self.study, self.corpus)

    @property
    def cache_flops(self) -> int:
        """Return the FLOPs of storing the teacher's outputs."""
        return _cache_flops(self.study, self.corpus)

    def teacher_of(self, seed: int) -> Facts | None:
        """Return the facts of the teacher that the student of a seed learns from."""
        facts = self.teacher or {}
        teachers: list[Facts | None] = facts.get("teachers") or [self.teacher]
        return teachers[seed % len(teachers)]

    def counts(self, seed: int, mask_rate: MaskRate | None = None) -> Counts | None:
        """Return the tokens of the text in a seed's order; None where the text is not there.

        Args:
            seed: seed of the order and the masks.
            mask_rate: masking rate of a run in which it changes over the budget.
        """
        return self.study.findings.counts(self.study.config, self.corpus, seed, mask_rate)


def audited_artifacts(study: RecordedStudy) -> AuditedArtifacts:
    """Audit text, teacher and stored outputs, each as far as it is still there."""
    corpus = _corpus(study)
    teacher = _teacher(study, corpus)
    return AuditedArtifacts(study, corpus, teacher, _cache(study, corpus))


def text_directory(study: RecordedStudy) -> Path:
    """Return the directory of the study's prepared text."""
    if study.config.data.prepared:
        return local_path(study.config.data.prepared, "data.prepared")
    return study.artifact_dirs["data"]


def _corpus(study: RecordedStudy) -> Corpus | None:
    """Open the text, where it is still there and whole."""
    directory = text_directory(study)
    if not directory.exists():
        return None
    with study.findings.record_errors(directory):
        if study.findings.intact(directory, Manifest.read(directory).shards):
            return apply_regime(study.config.data, Corpus.open(directory))
    return None


def _teacher(study: RecordedStudy, corpus: Corpus | None) -> Facts | None:
    """Audit the teacher's recorded facts; return those that students' charges follow from."""
    recorded: Facts | None = study.results.get("teacher")
    if not any(arm.needs_teacher for arm in study.arms.values()):
        return recorded
    if study.config.teacher.train.budget:
        return _trained_teachers(study, corpus, recorded)
    path = study.results_path
    name = "teacher"
    # A teacher that got its head here has a card of its own.
    directory = study.artifact_dirs["teacher"]
    if study.config.teacher.head.budget and directory.exists():
        path = directory / CARD
        name = ""
        recorded = study.findings.read(path) or recorded
    with study.findings.record_errors(path):
        if recorded is not None and _is_here(study.config.teacher.source):
            expected = _teacher_costs(study, corpus)
            facts = {fact: recorded.get(fact, 0) for fact in expected}
            study.findings.expect_equal(path, facts, expected, name, study.note)
            _audit_weights(study, recorded, path, name)
    return recorded


def _is_here(source: str) -> bool:
    """Return whether a teacher is on this machine; nothing is asked of the Hub."""
    if hub.is_repository(source):
        return hub.cached_directory(hub.parse(source)) is not None
    return sources.locate(source).exists()


def _teacher_costs(study: RecordedStudy, corpus: Corpus | None) -> dict[str, Any]:
    """Compute the cost of a teacher that was not trained here, and of fitting its head."""
    config = study.config
    head = config.teacher.head
    # What the source's card says was spent before this study, and on top of that the head: its
    # steps follow from its budget and the price of one.
    before = TeacherCost.from_facts(read_card(source_directories(config)[0].path))
    expected: dict[str, Any] = {
        "training_flops": int(config.teacher.training_flops) or before.training,
        "tuning_flops": before.tuning,
        "head_flops": before.head,
    }
    if head.budget:
        batch_shape = BatchShape(head.batch_size, config.data.seq_len, config.data.max_predictions)
        cost = price(head_phase(zoo.resolve(config.teacher.architecture), head), batch_shape)
        budget = Budget.flops(head.budget)
        (fit,) = schedule_phases(budget, [(1.0, cost)], batch_shape.tokens_per_step)
        account = "tuning_flops" if head.encoder == "tuned" else "head_flops"
        expected[account] += fit.steps * cost.total
        expected["head_steps"] = fit.steps
        if counts := study.findings.counts(config, corpus, 0):
            expected["head_tokens"] = counts.at(fit.steps * head.batch_size)["tokens"]
        study.tally["prices"] += 1
    return expected


def _audit_weights(study: RecordedStudy, facts: Facts, path: Path, name: str) -> None:
    """Compare the weights of teachers that were not trained here with their recorded hashes."""
    directories = [source.path for source in source_directories(study.config)]
    if study.config.teacher.head.budget:
        directories = [study.artifact_dirs["teacher"]]
    for directory, teacher in zip(directories, facts.get("teachers", [facts]), strict=True):
        if "params_sha256" not in teacher or not directory.exists():
            continue
        weights = sha256(read_teacher(directory).params)
        field = f"{name}.params_sha256".lstrip(".")
        study.findings.expect_equal(path, teacher["params_sha256"], weights, field)


def _trained_teachers(
    study: RecordedStudy, corpus: Corpus | None, recorded: Facts | None
) -> Facts | None:
    """Audit the teachers that the study trained; return their facts.

    Args:
        study: the study.
        corpus: the text; None where it is gone.
        recorded: facts to return where a teacher's card is missing.
    """
    directory = study.artifact_dirs["teacher"]
    if not directory.exists():
        seeds = ", ".join(str(seed) for seed in sorted(study.config.teacher.train.seeds))
        study.findings.add(directory, "no directory", f"the teachers trained here, seeds {seeds}")
        return recorded
    cards = []
    for seed in sorted(study.config.teacher.train.seeds):
        with study.findings.record_errors(directory / f"seed{seed}"):
            teacher = TeacherAudit(study, seed_directory(directory, seed), seed)
            counts = study.findings.counts(study.config, corpus, stream_seed(seed))
            cards.append(teacher.audit(corpus.digest if corpus else None, counts))
            study.tally["prices"] += 1
    # Students' charges follow from the cards, not from what results.json has of them.
    if not all(cards):
        return recorded
    facts: Facts | None = to_plain(teacher_facts(cards))
    return facts


def _cache(study: RecordedStudy, corpus: Corpus | None) -> CacheManifest | None:
    """Audit the stored teacher outputs: their bytes, and the FLOPs of making them."""
    directory = study.artifact_dirs["cache"]
    if study.config.cache.source:
        directory = local_path(study.config.cache.source, "cache.source")
    if not stored_features(study.arms) or not directory.exists():
        return None
    manifest = None
    with study.findings.record_errors(directory):
        manifest = CacheManifest.read(directory)
        study.findings.intact(directory, manifest.shards)
        expected = {
            "bytes": sum(shard.bytes for shard in manifest.shards),
            "flops": _cache_flops(study, corpus),
        }
        recorded = {"bytes": manifest.bytes, "flops": manifest.totals["flops"]}
        study.findings.expect_equal(directory, recorded, expected, note=study.note)
    return manifest


def _cache_flops(study: RecordedStudy, corpus: Corpus | None) -> int:
    """Return the FLOPs of storing the teacher's outputs."""
    return cache_flops(study.config, stored_features(study.arms), _sequences(study, corpus))


def _sequences(study: RecordedStudy, corpus: Corpus | None) -> int:
    """Return the number of sequences of the training split; as recorded where the text is gone."""
    if corpus is not None:
        return corpus.sequences("train")
    return int(study.results["corpus"]["sequences"]["train"])
