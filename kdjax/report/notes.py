"""What a reader of a study has to know besides its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdjax.config import Config
from kdjax.report import numbers
from kdjax.report.teacher_accounting import MEANINGS
from kdjax.results.schema import (
    ArmResult,
    MeasuredEndpoint,
    PretrainingFacts,
    Reference,
    Results,
    RunResult,
    TeacherFacts,
    probe_fit,
)
from kdjax.teacher_cache.manifest import CacheManifest, bias


def general(config: Config, count: int, false: float, teacher: TeacherFacts | None) -> list[str]:
    """How far the verdicts go, and what the budget does not hold; `false` of `count` intervals err
    by chance."""
    notes = [
        f"{count} intervals at {config.evaluation.confidence:.0%} were looked at, unadjusted: "
        "were no two arms "
        f"different, about {false:.2g} of them would leave out zero by chance.",
        _covered(teacher)
        + ("." if config.tuning else "; the arms share one setting and were not tuned one by one."),
        _budget(config, teacher),
    ]
    if teacher and teacher.pretraining:
        notes.append(_trained_teacher(teacher, teacher.pretraining))
    if len(config.seeds) < 2:
        notes.append("With one seed there is no interval, and so no verdict.")
    return notes


def _covered(teacher: TeacherFacts | None) -> str:
    """What the intervals over seeds cover; the end of the sentence is open."""
    count = len(teacher.teachers or ()) if teacher else 0
    if count < 2:
        return (
            "The intervals cover seeds (start, order, masks). They do not cover the choice of "
            "test rows, corpus, "
            "teacher or hyperparameters"
        )
    return (
        f"The intervals cover seeds (start, order, masks) and, as far as {count} teachers can "
        "show it, the variation "
        f"of the teacher's training: the student of seed s learns from teacher s mod {count}, and "
        "students of one "
        "teacher are counted as if they were independent. They do not cover the choice of test "
        "rows, corpus or "
        "hyperparameters"
    )


def _trained_teacher(teacher: TeacherFacts, training: PretrainingFacts) -> str:
    """How a teacher that kdjax pretrained was made."""
    teachers = teacher.teachers or (teacher,)
    count = len(teachers)
    share = training.at
    seeds = [one.pretraining.seed for one in teachers if one.pretraining]
    made = "The teacher was pretrained" if count == 1 else f"{count} teachers were pretrained"
    said = (
        f"{made} from scratch by masked language modelling (seed{'' if count == 1 else 's'} "
        f"{numbers.listed([str(seed) for seed in seeds])}), "
        f"{numbers.flops(teacher.training_flops)} FLOPs"
        f"{'' if count == 1 else ' each'}, {numbers.tokens(training.tokens)} tokens."
    )
    if share < 1:
        said += (
            f" Students learn from it as it was at {numbers.percent(share)} of its budget of "
            f"{numbers.flops(training.budget)} FLOPs, while its learning rate was still on its "
            "way down to 0."
        )
    return said


def _budget(config: Config, teacher: TeacherFacts | None) -> str:
    """What the budget holds and what it does not."""
    if config.budget.kind == "tokens":
        return (
            "The budget counts the tokens that the student sees, padding included, whatever a "
            "step costs: arms differ "
            "in FLOPs and in time."
        )
    if config.budget.kind == "hours":
        return (
            f"The budget counts wall-clock: {numbers.listed(config.budget.clock)}. How far it "
            "reaches depends on the "
            "machine and on what else ran there; the same run again would not take exactly as "
            "many steps."
        )
    said = "FLOPs are XLA's count of the training step. "
    probe = config.evaluation.mlm_probe
    but = (
        " but for the MLM probe, which is set aside first" if probe.tokens and probe.charged else ""
    )
    if teacher is None:
        return f"{said}Evaluation is not in the budget{but}."
    said += f"The budget pays for {MEANINGS[config.budget.teacher]}. Evaluation is not in it{but}."
    if config.budget.teacher not in ("nothing", "inference"):
        return said
    if teacher.head_flops:
        said += (
            " Nor is the fitting of the teacher's MLM head, "
            f"{numbers.flops(teacher.head_flops)} FLOPs; only arms "
            "with a logit term use it."
        )
    if tuning := teacher.tuning_flops:
        said += (
            f" Nor is the tuning of the teacher's encoder, {numbers.flops(tuning)} FLOPs; every "
            "arm with it uses it."
        )
    return said


def of_arms(arms: Mapping[str, ArmResult], cache: CacheManifest | None) -> list[str]:
    """What a reader has to know of single arms: those that differ in more than their objective, and
    stored outputs."""
    notes = []
    for name, arm in arms.items():
        own = [words for words in ("student", "optimizer", "finetune") if getattr(arm, words)]
        if arm.start.source == "teacher":
            own.append("start (the teacher's layers, copied at no cost)")
        if own:
            notes.append(
                f"{name} has its own {', '.join(own)}: more than the objective is compared."
            )
    if cache is not None:
        off = bias(cache)
        notes.append(
            f"The teacher's outputs were stored once for {cache.totals['flops']:.3g} FLOPs and "
            f"{cache.bytes:,} bytes, "
            "of which every run that reads them has its share before its first step."
            + (
                f" A position's stored distribution is {off['total_variation']:.3f} off the "
                "teacher's in total "
                f"variation, and its mean of −log p {off['entropy_error']:+.3f} nats off the "
                "teacher's entropy "
                f"({off['entropy']:.2f})."
                if off
                else ""
            )
        )
    return notes


def side_by_side(runs: Sequence[RunResult]) -> list[str]:
    """How a run's time is to be read where seeds trained together."""
    most = max((run.hardware.side_by_side for run in runs), default=1)
    if most == 1:
        return []
    return [
        f"Up to {most} seeds of an arm trained side by side as one program: a run has an even "
        "share of the time that "
        "their steps took, and the memory of a step is that of all of them."
    ]


def at_baseline(endpoints: Sequence[MeasuredEndpoint], runs: Sequence[RunResult]) -> list[str]:
    """Arms that no seed lifts above the majority class: a tie between two of them says nothing of
    either."""
    notes = []
    for endpoint in endpoints:
        if endpoint.baseline is None:
            continue
        stuck = [
            arm
            for arm in endpoint.arms
            if all(
                run.metrics[endpoint.name] <= endpoint.baseline for run in runs if run.arm == arm
            )
        ]
        if stuck:
            notes.append(
                f"{endpoint.label}: {', '.join(stuck)} stayed at the majority class under "
                "every seed; "
                "that two arms tie there says nothing of either."
            )
    return notes


def unconverged(runs: Sequence[RunResult], references: Sequence[Reference]) -> list[str]:
    """Count the MLM probes that more tokens would still have improved."""
    rows: list[RunResult | Reference] = [*runs, *references]
    probes = [probe for row in rows if (probe := probe_fit(row)) is not None]
    open_ones = [one for one in probes if not one.converged]
    if not open_ones:
        return []
    worst = max(one.gain for one in open_ones)
    return [
        f"{len(open_ones)} of {len(probes)} MLM probes had not converged: the second half of "
        "their tokens lowered "
        f"the held-out loss by more than {open_ones[0].tolerance:g} nats, by {worst:.3f} at "
        "most. They say what can "
        "be read with so many tokens, not all that is there; a higher evaluation.mlm_probe.tokens "
        "says more."
    ]


def regime(results: Results) -> str:
    """How much unique text there was, and what was done when it had all been seen.

    Args:
        results: the content of results.json.
    """
    corpus = results.corpus
    held = f"{corpus.tokens['train']:,} unique tokens in {corpus.sequences['train']:,} sequences"
    if corpus.regime == "limited":
        whole = corpus.whole.tokens["train"]
        return (
            f"limited: {held}, a seeded subset of {whole:,} tokens, repeated as long as the "
            "budget lasts"
        )
    if corpus.regime == "unlimited":
        return f"unlimited: {held}, none of them seen twice in a run"
    repeated = any(arm.epochs > 1 for arm in results.arms.values())
    return f"all there is: {held}, {'repeated' if repeated else 'more than any run read'}"


def masks(results: Results) -> str:
    """Whether a sequence that is seen again has other masks.

    Args:
        results: the content of results.json.
    """
    views = results.corpus.views
    if not views:
        return "new ones in every epoch, and of every seed"
    return (
        f"fixed: {views} view{'' if views == 1 else 's'} of a sequence, an epoch each, the same "
        "for every seed"
    )
