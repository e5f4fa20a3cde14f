"""What may make a study's verdicts say too much, as far as the run itself can see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdjax.report import contamination_table, notes, numbers, score_tables
from kdjax.report.averages import averages
from kdjax.report.phrases import counted, listed, say, sentence
from kdjax.results.failed import unlearnt_arms
from kdjax.results.study import Results

MANY_EPOCHS = 4.0
"""Passes over a text up to which repeated tokens are worth almost as much as new ones (Muennighoff
et al. 2023, arXiv 2305.16264)."""
HIGH_UNKNOWN = 0.01
"""Share of [UNK] among tokens from which on losses say less of the text."""


@dataclass(frozen=True)
class Threat:
    """A threat to what the verdicts say.

    Attributes:
        title: what it is, in a few words.
        text: what was seen, and what follows.
    """

    title: str
    text: str


def threats(results: Results) -> list[Threat]:
    """Return the threats that a study shows, those to every verdict first.

    Args:
        results: the content of results.json.
    """
    seen = []
    for title, see in _LOOKS.items():
        text = see(results)
        if text:
            seen.append(Threat(title, text))
    return seen


def threats_in_words() -> list[str]:
    """Return what is looked for, in a few words each."""
    return list(_LOOKS)


def _seeds(results: Results) -> str:
    """Return the sentence on too few seeds, seeds still to come, and earlier looks."""
    evaluation = results.config["evaluation"]
    level = numbers.percent(1 - evaluation["confidence"])
    seeds = len(results.config["seeds"])
    texts = []
    if seeds < 2:
        texts.append(say("one_seed"))
    elif seeds < notes.FEWEST_FOR_A_CLAIM:
        texts.append(say("few_seeds", seeds=counted(seeds, "seed")))
    planned = evaluation.get("planned_seeds", 0)
    if seeds < planned:
        texts.append(say("planned_seeds", planned=planned, seeds=seeds))
    if results.looks:
        texts.append(say("looked", looks=listed(results.looks), level=level))
    return sentence(*texts)


def _tuning(results: Results) -> str:
    """Return the sentence on arms that were not tuned, or in too narrow a range."""
    if results.tuning is None:
        return say("threat_untuned")
    missing = [arm for arm in results.arms if arm not in results.tuning.arms]
    edges = [arm for arm, tuned in results.tuning.arms.items() if tuned.edges]
    return sentence(
        say("threat_tuned_some", arms=listed(missing)) if missing else "",
        say("threat_edge", arms=listed(edges)) if edges else "",
    )


def _more_than_objective(results: Results) -> str:
    """Return the sentence on arms that differ from the others in more than their objective."""
    arms = []
    for name, arm in results.arms.items():
        # Arms that were tuned alike have the optimiser that suits each.
        own_optimizer = bool(arm.optimizer) and results.tuning is None
        if arm.student or own_optimizer or arm.finetune or arm.start.source == "teacher":
            arms.append(name)
    return say("threat_settings", arms=listed(arms)) if arms else ""


def _memorised(results: Results) -> str:
    """Return the sentence on arms that saw their text too often."""
    epochs = averages(results, lambda run: run.epochs)
    arms = [f"{arm} ({times:.3g})" for arm, times in epochs.items() if times > MANY_EPOCHS]
    return say("threat_memorised", arms=listed(arms), most=f"{MANY_EPOCHS:g}") if arms else ""


def _contaminated(results: Results) -> str:
    """Return the sentences on evaluation rows that stand in training text."""
    settings = results.config["evaluation"].get("contamination", {})
    return sentence(*contamination_table.notes(results.contamination, settings.get("share", 0.0)))


def _unknown(results: Results) -> str:
    """Return the sentence on text that the tokenizer does not know."""
    rates = results.corpus.token_rates
    losses = results.corpus.ngram_losses
    unknown = rates.unknown if rates is not None else losses.unknown if losses is not None else {}
    share = max(unknown.values(), default=0.0)
    return say("threat_unknown", share=numbers.percent(share)) if share > HIGH_UNKNOWN else ""


def _teacher(results: Results) -> str:
    """Return the sentence on a teacher that was made for something else, or is no better."""
    teacher = results.teacher
    if teacher is None:
        return ""
    texts = []
    if teacher.head_flops or teacher.tuning_flops:
        texts.append(say("threat_teacher_head"))
    if teacher.pretraining is not None and teacher.pretraining.at < 1:
        texts.append(say("threat_teacher_early", share=numbers.percent(teacher.pretraining.at)))
    endpoint = next((e for e in results.endpoints if e.name == "mlm_loss"), None)
    if endpoint is not None and teacher.mlm_loss is not None:
        better = []
        for arm in endpoint.arms:
            losses = [
                run.metrics["mlm_loss"]
                for run in results.runs
                if run.arm == arm and "mlm_loss" in run.metrics
            ]
            if losses and max(losses) < teacher.mlm_loss:
                better.append(arm)
        if better:
            texts.append(say("threat_teacher_worse", arms=listed(better)))
    return sentence(*texts)


def _diverged(results: Results) -> str:
    """Return the sentences on runs that diverged."""
    return sentence(*notes.divergences(results.runs))


def _unlearnt(results: Results) -> str:
    """Return the sentences on arms at the best constant answer, and on failed fine-tunings."""
    labels = []
    failed = 0
    trials = 0
    for endpoint in results.endpoints:
        unlearnt = unlearnt_arms(endpoint, results.runs)
        arms = [arm for arm in endpoint.arms if arm in unlearnt]
        if arms:
            labels.append(f"{endpoint.label} ({', '.join(arms)})")
        counts = score_tables.failures(results.runs, endpoint.name)
        failed += counts[0]
        trials += counts[1]
    return sentence(
        say("threat_unlearnt", labels="; ".join(labels)) if labels else "",
        say("threat_failed", failed=f"{failed:,}", trials=f"{trials:,}") if failed else "",
    )


def _near_counts(results: Results) -> str:
    """Return the sentences on losses that counts of the text reach, too."""
    losses = results.corpus.ngram_losses
    return sentence(*notes.unigram_notes(results.endpoints, results.runs, losses))


def _probes(results: Results) -> str:
    """Return the sentence on probes that more tokens would still have improved."""
    return sentence(*notes.unconverged_note(results.runs, results.references))


_LOOKS: dict[str, Callable[[Results], str]] = {
    "Few seeds": _seeds,
    "Unequal tuning": _tuning,
    "More than the objective differs": _more_than_objective,
    "Diverged runs": _diverged,
    "Memorised text": _memorised,
    "Contaminated tasks": _contaminated,
    "Unknown tokens": _unknown,
    "Another kind of teacher": _teacher,
    "At the best constant answer": _unlearnt,
    "No better than counts": _near_counts,
    "Probes not converged": _probes,
}
"""What it is, in a few words -> what sees it; empty where there is nothing to see."""
