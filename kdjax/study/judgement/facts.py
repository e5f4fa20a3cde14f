"""Facts that results.json gives of a study's teacher, text and arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, Literal

import jax

from kdjax.config import Config, ModelConfig, PhaseConfig, TermConfig
from kdjax.data.corpus import Corpus
from kdjax.data.manifest import SPLITS, Manifest
from kdjax.data.prepare.ngram_losses import NgramLosses
from kdjax.models import abstract_params, count_params
from kdjax.results.arm_results import ArmPhase, ArmResult, StudentFacts
from kdjax.results.runs import RunResult
from kdjax.results.teacher_facts import StoredOutputs, TeacherFacts
from kdjax.results.text import (
    CorpusFacts,
    CountedLosses,
    TeacherTokenFacts,
    TextFacts,
    TokenRates,
    WholeText,
)
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.study.artifacts.corpus import text_warnings
from kdjax.study.manifest import ArmCost
from kdjax.training.arm import Arm
from kdjax.training.teacher_cache.manifest import CacheManifest, bias


def teacher_facts(teachers: Sequence[Mapping[str, Any]]) -> TeacherFacts | None:
    """Gather the facts of a study's teacher, or of its teachers together.

    Args:
        teachers: facts of each, in the order in which students take them; empty where no arm
            needs one.

    Returns:
        The facts of the only teacher, or of the first of several, with the means of `mlm_loss` and
        `mlm_accuracy`, and in `teachers` the facts of each.
    """
    if not teachers:
        return None
    each = tuple(from_plain(TeacherFacts, dict(facts), "teacher.json:") for facts in teachers)
    first = each[0]
    if len(each) == 1:
        return first
    # No teacher's weights stand for those of all.
    others = {name: value for name, value in first.others.items() if name != "params_sha256"}
    return replace(
        first,
        mlm_loss=_mean(facts.mlm_loss for facts in each),
        mlm_accuracy=_mean(facts.mlm_accuracy for facts in each),
        teachers=each,
        others=others,
    )


def _mean(figures: Iterable[float | None]) -> float | None:
    """Return the mean of the figures that were measured; None where none was."""
    measured = [figure for figure in figures if figure is not None]
    if not measured:
        return None
    return fmean(measured)


def corpus_facts(
    config: Config, corpus: Corpus, losses: NgramLosses, texts: Mapping[str, Corpus]
) -> CorpusFacts:
    """Gather the facts of a study's text.

    Args:
        config: the recipe.
        corpus: the text that its runs see.
        losses: the text's own cross-entropies.
        texts: name -> held-out text from elsewhere.
    """
    manifest = corpus.manifest
    return CorpusFacts(
        regime=config.data.regime,
        documents=manifest.documents,
        sequences={split: corpus.sequences(split) for split in SPLITS},
        tokens={split: corpus.tokens(split) for split in SPLITS},
        whole=WholeText(manifest.sequences, manifest.tokens),
        digest=corpus.digest,
        length=manifest.length,
        views=config.data.mask_copies,
        vocabulary=manifest.vocab_size,
        tokenizer=manifest.tokenizer_sha256,
        ngram_losses=CountedLosses(**losses.figures()),
        token_rates=_token_rates(manifest),
        texts={name: _text_facts(text) for name, text in texts.items()},
        warnings=tuple(text_warnings(corpus, losses)) or None,
        teacher_tokens=_teacher_tokens(config, manifest),
    )


def _teacher_tokens(config: Config, manifest: Manifest) -> TeacherTokenFacts | None:
    """Gather how a teacher's own tokenizer takes the text; None where it reads the student's."""
    teacher = manifest.teacher
    # A corpus that has its tokens may be read without them.
    if teacher is None or not config.data.teacher_tokenizer:
        return None
    return TeacherTokenFacts(
        vocabulary=teacher.vocab_size,
        tokenizer=teacher.tokenizer_sha256,
        length=teacher.length,
        tokens=teacher.text_tokens,
        words=teacher.words,
        left_out=teacher.left_out,
    )


def _token_rates(manifest: Manifest) -> TokenRates | None:
    """Gather how the tokenizer takes the text; None in corpora of earlier versions."""
    if manifest.text is None:
        return None
    by_word, by_character = manifest.text.rates(manifest.text_tokens)
    return TokenRates(manifest.unknown, by_word, by_character)


def _text_facts(text: Corpus) -> TextFacts:
    """Gather the facts of a held-out text from elsewhere."""
    return TextFacts(
        documents=text.manifest.documents["validation"],
        sequences=text.sequences("validation"),
        tokens=text.tokens("validation"),
        digest=text.digest,
    )


def student_facts(model: ModelConfig) -> StudentFacts:
    """Return a student's size; its parameters include its MLM head's."""
    count = count_params(abstract_params(model))
    return StudentFacts(
        layers=model.layers,
        width=model.width,
        heads=model.heads,
        ffn=model.ffn,
        vocab_size=model.vocab_size,
        parameters=count.embeddings + count.others,
        parameters_without_embeddings=count.others,
    )


def arm_result(arm: Arm, cost: ArmCost, runs: Sequence[RunResult]) -> ArmResult:
    """Return an arm as it ran; under a budget of hours, as its first run did.

    Args:
        arm: the arm.
        cost: cost of its runs.
        runs: finished runs of the study.
    """
    # Only a clock makes runs of an arm differ in steps, and a loss that is not finite.
    arm_runs = [run for run in runs if run.arm == arm.name]
    first = next((run for run in arm_runs if run.diverged is None), arm_runs[0])
    phases = [
        ArmPhase(_plain_terms(phase), phase.until, price, run_phase.batch, run_phase.steps)
        for phase, price, run_phase in zip(
            arm.config.phases, cost.prices, first.phases, strict=True
        )
    ]
    student = student_facts(arm.student_config)
    outputs: Literal["cached", "online"] | None = None
    if arm.uses_teacher:
        outputs = "cached" if arm.stored_features else "online"
    return ArmResult(
        phases=tuple(phases),
        start=arm.start,
        student=to_plain(arm.config.student),
        optimizer=to_plain(arm.config.optimizer),
        finetune=to_plain(arm.config.finetune),
        teacher=outputs,
        steps=first.steps,
        spent=first.spent,
        tokens=first.tokens_seen,
        epochs=first.epochs,
        words=first.words_seen,
        parameters=student.parameters,
        parameters_without_embeddings=student.parameters_without_embeddings,
        trains_mlm_head=arm.trains_mlm_head,
        needs_teacher=arm.needs_teacher,
        untrained=tuple(_untrained(arm.gradient_mask["model"])),
    )


def _plain_terms(phase: PhaseConfig) -> tuple[TermConfig, ...]:
    """Return a phase's terms with their options as JSON has them, schedules among them too."""
    return tuple(replace(term, options=to_plain(term.options)) for term in phase.terms)


def stored_outputs(cache: CacheManifest | None) -> StoredOutputs | None:
    """Return the form, the cost and the bias of stored teacher outputs."""
    if cache is None:
        return None
    return StoredOutputs(
        views=cache.views,
        sequences=cache.sequences,
        flops=int(cache.totals["flops"]),
        bytes=cache.bytes,
        bias=bias(cache),
        settings=cache.identity["cache"],
    )


def _untrained(tree: Any, name: str = "") -> list[str]:
    """Return the largest parts of a model that get no gradient, by dotted name."""
    # A part with no gradient anywhere is named as a whole; its own parts are not.
    if not any(jax.tree.leaves(tree)):
        return [name]
    if not isinstance(tree, dict):
        return []
    parts: list[str] = []
    for key, branch in tree.items():
        parts += _untrained(branch, f"{name}.{key}".lstrip("."))
    return parts
