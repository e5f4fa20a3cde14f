"""What a reader of a study has to know besides its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.config import Config
from kdjax.data.cache import CacheManifest
from kdjax.train import cache as outputs


def general(config: Config, count: int, false: float, teacher: Mapping[str, Any] | None) -> list[str]:
    """How far the verdicts go, and what the budget does not hold; `false` of `count` intervals err by chance."""
    notes = [
        f"{count} intervals at {config.evaluation.confidence:.0%} were looked at, unadjusted: were no two arms "
        f"different, about {false:.1f} of them would leave out zero by chance.",
        "The intervals cover seeds (start, order, masks). They do not cover the choice of test rows, corpus, teacher "
        "or hyperparameters; the arms share one setting and were not tuned one by one.",
        "FLOPs are XLA's count of the training step, the teacher's forward passes included. What training the teacher "
        "cost, and evaluation, are not in the budget.",
    ]
    if teacher and teacher["head_flops"]:
        notes.append(
            f"Fitting the teacher's MLM head cost {teacher['head_flops']:.3g} FLOPs besides; only arms with a logit "
            "term use it."
        )
    if len(config.seeds) < 2:
        notes.append("With one seed there is no interval, and so no verdict.")
    return notes


def of_arms(arms: Mapping[str, Mapping[str, Any]], cache: CacheManifest | None) -> list[str]:
    """What a reader has to know of single arms: those that differ in more than their objective, and stored outputs."""
    notes = []
    for name, arm in arms.items():
        own = [words for words in ("student", "optimizer", "finetune") if arm[words]]
        if arm["start"]["source"] == "teacher":
            own.append("start (the teacher's layers, at no cost)")
        if own:
            notes.append(f"{name} has its own {', '.join(own)}: more than the objective is compared.")
    if cache is not None:
        off = outputs.bias(cache)
        notes.append(
            f"The teacher's outputs were stored once for {cache.totals['flops']:.3g} FLOPs and {cache.bytes:,} bytes, "
            "and every run that reads them paid its share before its first step."
            + (
                f" A position's stored distribution is {off['total_variation']:.3f} off the teacher's in total "
                f"variation, and its mean of −log p {off['entropy_error']:+.3f} nats off the teacher's entropy "
                f"({off['entropy']:.2f})."
                if off
                else ""
            )
        )
    return notes


def at_baseline(endpoints: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Arms that no seed lifts above the majority class: a tie between two of them says nothing of either."""
    notes = []
    for endpoint in endpoints:
        if endpoint["baseline"] is None:
            continue
        stuck = [
            arm
            for arm in endpoint["arms"]
            if all(run["metrics"][endpoint["name"]] <= endpoint["baseline"] for run in runs if run["arm"] == arm)
        ]
        if stuck:
            notes.append(
                f"{endpoint['label']}: {', '.join(stuck)} stayed at the majority class under every seed; "
                "that two arms tie there says nothing of either."
            )
    return notes
