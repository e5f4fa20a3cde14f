"""What a reader of a study has to know besides its numbers, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdjax.config import Config
from kdjax.report import numbers
from kdjax.report.phrases import counted, listed, say, sentence
from kdjax.results.arm_results import ArmResult
from kdjax.results.failed import unlearnt_arms
from kdjax.results.runs import EndedRun, ReferenceModel, RunResult, probe_fit
from kdjax.results.study import Results
from kdjax.results.teacher_facts import TeacherFacts
from kdjax.results.text import CountedLosses
from kdjax.results.verdicts import MeasuredEndpoint
from kdjax.training.teacher_cache.manifest import CacheManifest, bias

FEWEST_FOR_A_CLAIM = 5
"""Seeds that a claim should rest on, at least."""


def general(config: Config, teacher: TeacherFacts | None) -> list[str]:
    """Return the sentences on how far the verdicts go, and what the budget leaves out.

    Args:
        config: resolved recipe, with confidence, seeds, tuning and budget.
        teacher: facts of the teacher; None without one.
    """
    teachers: Sequence[TeacherFacts] = ()
    if teacher:
        teachers = teacher.teachers or (teacher,)
    # Verdicts cover the seeds that varied: students', and teachers' where there were several.
    covered = say("covered_teachers", count=len(teachers)) if len(teachers) > 1 else say("covered")
    if not config.tuning:
        covered = sentence(covered, say("untuned"))
    notes = [covered, _budget(config, teacher)]
    if teacher and teacher.pretraining:
        notes.append(_pretraining(teacher, teachers))
    if teacher and config.data.teacher_tokenizer:
        notes.append(say("own_tokens"))
    return notes


def verdict_notes(config: Config, count: int, looks: Sequence[int]) -> list[str]:
    """Return the sentences on how many comparisons there are, and over how many seeds.

    Args:
        config: resolved recipe, with confidence and seeds.
        count: number of comparisons, contrasts included.
        looks: numbers of seeds with which results were made before these, rising.
    """
    evaluation = config.evaluation
    seeds = len(config.seeds)
    level = numbers.percent(1 - evaluation.confidence)
    sentences = [say("chance", count=count, level=level)]
    if seeds < 2:
        sentences.append(say("one_seed"))
    elif seeds < FEWEST_FOR_A_CLAIM:
        sentences.append(say("few_seeds", seeds=counted(seeds, "seed")))
    if seeds < evaluation.planned_seeds:
        sentences.append(say("planned_seeds", planned=evaluation.planned_seeds, seeds=seeds))
    if looks:
        sentences.append(say("looked", looks=listed(looks), level=level))
    return sentences


def _pretraining(teacher: TeacherFacts, teachers: Sequence[TeacherFacts]) -> str:
    """Return the sentence on how teachers that kdjax pretrained were made."""
    training = teacher.pretraining
    assert training is not None  # the caller has checked
    seeds = [str(member.pretraining.seed) for member in teachers if member.pretraining]
    described = say(
        "pretrained",
        count=len(teachers),
        seeds=listed(seeds),
        flops=numbers.flops(teacher.training_flops),
        tokens=numbers.tokens(training.tokens),
    )
    if training.at == 1:
        return described
    share = numbers.percent(training.at)
    return sentence(
        described, say("early_teacher", share=share, budget=numbers.flops(training.budget))
    )


def _budget(config: Config, teacher: TeacherFacts | None) -> str:
    """Return the sentence on what the budget includes and what it does not."""
    budget = config.budget
    if budget.kind != "flops":
        return say(f"budget_{budget.kind}", clock=listed(budget.clock))
    probe = config.evaluation.mlm_probe
    excluded = [say("evaluation")]
    if probe.tokens and probe.charged:
        excluded = [say("evaluation_but_probe")]
    if teacher is None:
        return sentence(say("budget_flops"), say("not_in_budget", excluded=excluded[0]))

    # Where the teacher's training is paid for, these parts of it are too.
    if budget.teacher in ("nothing", "inference"):
        if teacher.head_flops:
            excluded.append(say("head_fitting", flops=numbers.flops(teacher.head_flops)))
        if teacher.tuning_flops:
            excluded.append(say("encoder_tuning", flops=numbers.flops(teacher.tuning_flops)))
    return sentence(
        say("budget_flops"),
        say("budget_pays", meaning=say(f"pays_{budget.teacher}")),
        say("not_in_budget", excluded="; ".join(excluded)),
    )


def arm_notes(arms: Mapping[str, ArmResult], cache: CacheManifest | None) -> list[str]:
    """Return notes on arms that differ in more than their objective, and on stored outputs."""
    notes = []
    for name, arm in arms.items():
        # Such arms differ in more than one thing, so a verdict is on all of them together.
        settings = [key for key in ("student", "optimizer", "finetune") if getattr(arm, key)]
        if arm.start.source == "teacher":
            settings.append(say("own_pruned_start" if arm.start.prunes else "own_start"))
        if settings:
            notes.append(say("own_settings", arm=name, settings=", ".join(settings)))
    if cache is not None:
        note = say("stored", flops=cache.totals["flops"], bytes=cache.bytes)
        # Outputs stored whole have no bias.
        if errors := bias(cache):
            note = sentence(note, say("stored_bias", **errors))
        notes.append(note)
    return notes


def side_by_side_note(runs: Sequence[RunResult]) -> list[str]:
    """Return a note on reading a run's time where seeds trained together; else nothing."""
    count = max((run.hardware.side_by_side for run in runs), default=1)
    if count == 1:
        return []
    return [say("side_by_side", count=count)]


def unlearnt_notes(endpoints: Sequence[MeasuredEndpoint], runs: Sequence[RunResult]) -> list[str]:
    """Return notes on endpoints with arms that have learnt nothing of them.

    Args:
        endpoints: measures of the models.
        runs: all runs.
    """
    # Endpoints with the same arms share a note.
    labels: dict[tuple[str, str], list[str]] = {}
    for endpoint in endpoints:
        unlearnt = unlearnt_arms(endpoint, runs)
        if unlearnt:
            is_pairs = endpoint.kind == "minimal_pairs"
            guess = "chance" if is_pairs else "the best constant answer"
            arms = listed(arm for arm in endpoint.arms if arm in unlearnt)
            labels.setdefault((guess, arms), []).append(endpoint.label)
    notes = []
    for (guess, arms), names in labels.items():
        notes.append(say("not_learnt", label="; ".join(names), guess=guess, arms=arms))
    return notes


def unigram_notes(
    endpoints: Sequence[MeasuredEndpoint],
    runs: Sequence[RunResult],
    losses: CountedLosses | None,
) -> list[str]:
    """Return a note for each loss on the study's text that no seed of an arm brings below unigram.

    Args:
        endpoints: measures of the models.
        runs: all runs.
        losses: the text's own cross-entropies; None where they were not counted.
    """
    if losses is None:
        return []
    notes = []
    for endpoint in endpoints:
        if endpoint.name not in ("mlm_loss", "mlm_probe"):
            continue
        values = _values(endpoint, runs)
        arms = [arm for arm in values if min(values[arm]) >= losses.unigram]
        if arms:
            notes.append(
                say(
                    "above_unigram", label=endpoint.label, unigram=losses.unigram, arms=listed(arms)
                )
            )
    return notes


def _values(endpoint: MeasuredEndpoint, runs: Sequence[RunResult]) -> dict[str, list[float]]:
    """Return the values of each arm that has any on an endpoint, in the order of its arms."""
    values: dict[str, list[float]] = {}
    for arm in endpoint.arms:
        arm_runs = [run for run in runs if run.arm == arm and endpoint.name in run.metrics]
        if arm_runs:
            values[arm] = [run.metrics[endpoint.name] for run in arm_runs]
    return values


def divergences(runs: Sequence[EndedRun]) -> list[str]:
    """Return a sentence on each arm with runs that diverged: which seeds, and at which step."""
    sentences = []
    for arm in dict.fromkeys(run.arm for run in runs):
        arm_runs = [run for run in runs if run.arm == arm]
        places = [
            f"seed {run.seed} at step {run.diverged.step:,}" for run in arm_runs if run.diverged
        ]
        if places:
            sentences.append(
                say(
                    "diverged",
                    arm=arm,
                    places=listed(places),
                    bad=len(places),
                    count=len(arm_runs),
                )
            )
    return sentences


def unconverged_note(runs: Sequence[RunResult], references: Sequence[ReferenceModel]) -> list[str]:
    """Return a note on the MLM probes that more tokens would still have improved; else nothing."""
    rows: list[RunResult | ReferenceModel] = [*runs, *references]
    probes = [probe for row in rows if (probe := probe_fit(row))]
    unfinished = [probe for probe in probes if not probe.converged]
    if not unfinished:
        return []
    return [
        say(
            "unconverged",
            open=len(unfinished),
            count=len(probes),
            tolerance=unfinished[0].tolerance,
            worst=max(probe.gain for probe in unfinished),
        )
    ]


def regime(results: Results) -> str:
    """Return the sentence on how much unique text there was, and whether runs repeated it."""
    corpus = results.corpus
    text = say("text", tokens=corpus.tokens["train"], sequences=corpus.sequences["train"])
    name = corpus.regime
    if name == "all":
        # What a regime without a limit does depends on how far the longest run read.
        name = "unread"
        if any(arm.epochs > 1 for arm in results.arms.values()):
            name = "repeated"
    return say(f"regime_{name}", text=text, whole=corpus.whole.tokens["train"])


def masks(results: Results) -> str:
    """Return the sentence on whether a sequence that is seen again has other masks."""
    views = results.corpus.views
    if not views:
        return say("masks_new")
    return say("masks_fixed", views=counted(views, "view"))
