"""What a study found, as plain values: the content of `results.json`."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax

import kdjax
from kdjax.budget.ledger import Stretch
from kdjax.config import Config, plain, to_dict
from kdjax.data.cache import CacheManifest
from kdjax.data.manifest import Manifest
from kdjax.data.tasks import Task
from kdjax.evaluate.statistics import compare_all, expected_false
from kdjax.models import abstract_params, count_params
from kdjax.train import cache as outputs
from kdjax.train.arm import Arm


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    device = jax.devices()[0]
    return {
        "kdjax": kdjax.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": f"{device.device_kind} x{jax.device_count()}",
    }


def collect(
    config: Config,
    *,
    arms: Mapping[str, Arm],
    stretches: Mapping[str, tuple[Stretch, ...]],
    manifest: Manifest,
    teacher: Mapping[str, Any] | None,
    cache: CacheManifest | None,
    tasks: Sequence[Task],
    runs: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Joins what a study's runs measured, and judges every pair of arms on every endpoint."""
    values = plain(to_dict(config))
    described = {name: _describe(arm, stretches[name], runs) for name, arm in arms.items()}
    endpoints = _endpoints(config, manifest, tasks, described)
    verdicts = [verdict for endpoint in endpoints for verdict in _verdicts(config, endpoint, runs)]
    first = next(iter(arms.values())).student
    embeddings, others = count_params(abstract_params(first))
    confidence = config.evaluation.confidence
    false = expected_false(len(verdicts), confidence)
    return {
        **versions(),
        "config": values,
        "config_digest": hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(),
        "budget": {"flops": int(config.budget.flops)},
        "corpus": {
            "documents": manifest.documents,
            "sequences": manifest.sequences,
            "tokens": manifest.tokens,
            "digest": manifest.digest,
            "length": manifest.length,
        },
        "teacher": dict(teacher) if teacher else None,
        "cache": _stored(cache) if cache else None,
        "student": {
            **{name: getattr(first, name) for name in ("layers", "width", "heads", "ffn", "vocab_size")},
            "parameters": embeddings + others,
            "parameters_without_embeddings": others,
        },
        "arms": described,
        "differences": _differences(described),
        "same": _same(config, arms),
        "endpoints": endpoints,
        "runs": list(runs),
        "references": list(references),
        "verdicts": verdicts,
        "notes": [
            *_notes(config, len(verdicts), false, teacher),
            *_about_arms(described, cache),
            *_at_baseline(endpoints, runs),
        ],
    }


def _describe(arm: Arm, stretches: tuple[Stretch, ...], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = next(run for run in runs if run["arm"] == arm.name)
    model = arm.trained["model"]
    return {
        "phases": [
            {
                "terms": [plain(to_dict(term)) for term in phase.terms],
                "until": phase.until,
                "price": stretch.price.to_json(),
                "steps": stretch.steps,
            }
            for phase, stretch in zip(arm.config.phases, stretches, strict=True)
        ],
        "start": plain(to_dict(arm.start)),
        "student": arm.config.student,
        "optimizer": arm.config.optimizer,
        "finetune": arm.config.finetune,
        "teacher": ("cached" if arm.stored else "online") if arm.distils else None,
        "steps": sum(stretch.steps for stretch in stretches),
        "spent": own["spent"],
        "tokens": own["tokens_seen"],
        "epochs": own["epochs"],
        "trains_mlm_head": all(jax.tree.leaves(model["mlm"])),
        "untrained": _untrained(model),
    }


def _stored(cache: CacheManifest) -> dict[str, Any]:
    """What is known of stored teacher outputs: how they are stored, what they cost, how far they are off a position."""
    return {
        **cache.identity["cache"],
        "views": cache.views,
        "sequences": cache.sequences,
        "flops": cache.totals["flops"],
        "bytes": cache.bytes,
        "bias": outputs.bias(cache),
    }


def _same(config: Config, arms: Mapping[str, Arm]) -> list[str]:
    """What all arms of the study share; what an arm's own settings change is not among it."""
    found = list(arms.values())
    same = ["data order and masks, within a seed"]
    if all(arm.start == found[0].start and arm.student == found[0].student for arm in found):
        same.append("the student and its start, within a seed")
    if not any(arm.config.optimizer for arm in found):
        same.append(
            "optimiser, peak learning rate and the schedule's shape (its length in steps follows from the budget)"
        )
    same.append("held-out sequences and masks, and probes, none of it charged to the budget")
    if not any(arm.config.finetune for arm in found):
        same.append("fine-tuning")
    return same


def _untrained(tree: Any, name: str = "") -> list[str]:
    """The largest parts of a model that get no gradient, by dotted name."""
    if not any(jax.tree.leaves(tree)):
        return [name]
    if not isinstance(tree, dict):
        return []
    return [part for key, below in tree.items() for part in _untrained(below, f"{name}.{key}" if name else key)]


def _endpoints(
    config: Config, manifest: Manifest, tasks: Sequence[Task], arms: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "name": "mlm_loss",
            "label": "Held-out MLM loss",
            "unit": "nats",
            "better": "lower",
            "kind": "mlm",
            "rows": min(config.evaluation.mlm_sequences, manifest.sequences["validation"]),
            "baseline": None,
            "arms": [name for name, arm in arms.items() if arm["trains_mlm_head"]],
        }
    ]
    kinds = [("probe", "linear probe, best layer")]
    if config.evaluation.finetune.steps:
        kinds.append(("finetune", "fine-tuned"))
    for kind, how in kinds:
        for task in tasks:
            rows.append(
                {
                    "name": f"{kind}.{task.name}",
                    "label": f"{task.name}, {how}",
                    "unit": "Pearson's r" if task.regression else "accuracy",
                    "better": "higher",
                    "kind": kind,
                    "rows": len(task.test),
                    "baseline": task.baseline,
                    "arms": list(arms),
                }
            )
    return rows


def _verdicts(config: Config, endpoint: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    name, better = endpoint["name"], endpoint["better"]
    values = {arm: {run["seed"]: run["metrics"][name] for run in runs if run["arm"] == arm} for arm in endpoint["arms"]}
    settings = config.evaluation
    found = compare_all(values, confidence=settings.confidence, margin=settings.margin, better=better)
    return [{"endpoint": name, **asdict(comparison)} for comparison in found]


def _differences(arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What arms of a study differ in: the objective, what their own settings change, what follows from the price."""

    def per_phase(show: Callable[[Mapping[str, Any]], str]) -> Callable[[Mapping[str, Any]], str]:
        return lambda arm: "; then ".join(show(phase) for phase in arm["phases"])

    def share(arm: Mapping[str, Any], *parts: str) -> str:
        return f"{sum(arm['spent'][part] for part in parts) / arm['spent']['total']:.0%}"

    always: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "objective": per_phase(lambda phase: " + ".join(map(_term, phase["terms"]))),
        "FLOPs of a step": per_phase(lambda phase: f"{phase['price']['total']:.4g}"),
        "spent on the teacher": lambda arm: share(arm, "teacher_forward", "teacher_cache"),
        "steps (and length of the schedule)": per_phase(lambda phase: f"{phase['steps']:,}"),
        "tokens seen": lambda arm: f"{arm['tokens']:,}",
        "epochs": lambda arm: f"{arm['epochs']:.3f}",
        "parameters without a gradient": lambda arm: ", ".join(arm["untrained"]) or "none",
    }
    sometimes: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "start": lambda arm: (
            "random" if arm["start"]["source"] == "random" else f"teacher layers: {arm['start']['layers']}"
        ),
        "teacher's outputs": lambda arm: {"cached": "stored", "online": "every step", None: "none"}[arm["teacher"]],
        **{
            words: lambda arm, name=name: _settings(arm[name])  # type: ignore[misc]
            for name, words in (("student", "student"), ("optimizer", "optimiser"), ("finetune", "fine-tuning"))
        },
    }
    rows = [(name, {arm: show(row) for arm, row in arms.items()}) for name, show in {**always, **sometimes}.items()]
    kept = [(name, values) for name, values in rows if name in always or _worth_a_row(name, values)]
    return [{"setting": name, "values": values} for name, values in kept]


def _worth_a_row(name: str, values: Mapping[str, str]) -> bool:
    """Whether arms differ in it; that one has no teacher and another runs it in every step goes without saying."""
    found = set(values.values())
    return len(found) > 1 and not (name == "teacher's outputs" and "stored" not in found)


def _settings(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items()) or "as in the recipe"


def _term(term: Mapping[str, Any]) -> str:
    weight = term["weight"] if isinstance(term["weight"], dict) else f"{term['weight']:g}"
    return (
        f"{_number(weight)} {term['name']}"
        + (f" ({term['variant']})" if term["variant"] != "original" else "")
        + (f" [{', '.join(f'{k} {_number(v)}' for k, v in term['options'].items())}]" if term["options"] else "")
    )


def _number(value: Any) -> str:
    """A setting as text: a schedule by its points."""
    if not isinstance(value, dict):
        return str(value)
    points = " → ".join(f"{number:g} at {at:.0%}" for at, number in value["points"])
    return f"({points}, {value['shape']})"


def _notes(config: Config, count: int, false: float, teacher: Mapping[str, Any] | None) -> list[str]:
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


def _about_arms(arms: Mapping[str, Mapping[str, Any]], cache: CacheManifest | None) -> list[str]:
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


def _at_baseline(endpoints: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]) -> list[str]:
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
