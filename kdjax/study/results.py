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
from kdjax.budget.ledger import affordable_steps
from kdjax.budget.price import Price
from kdjax.config import Config, plain, to_dict
from kdjax.data.prepare import Manifest
from kdjax.data.tasks import Task
from kdjax.evaluate.statistics import compare_all, expected_false
from kdjax.models import count_params
from kdjax.objectives.presets import terms_of
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
    prices: Mapping[str, Price],
    manifest: Manifest,
    teacher: Mapping[str, Any] | None,
    tasks: Sequence[Task],
    runs: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Joins what a study's runs measured, and judges every pair of arms on every endpoint."""
    values = plain(to_dict(config))
    described = {name: _describe(config, arm, prices[name], runs) for name, arm in arms.items()}
    endpoints = _endpoints(config, manifest, tasks, described)
    verdicts = [verdict for endpoint in endpoints for verdict in _verdicts(config, endpoint, runs)]
    first = next(iter(arms.values())).student
    embeddings, others = count_params(next(iter(arms.values())).abstract_params()["model"])
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
        "student": {
            **{name: getattr(first, name) for name in ("layers", "width", "heads", "ffn", "vocab_size")},
            "parameters": embeddings + others,
            "parameters_without_embeddings": others,
        },
        "arms": described,
        "differences": _differences(described),
        "same": [
            "the student's start, data order and masks, within a seed",
            "model, optimiser, peak learning rate and the schedule's shape (its length follows from the budget)",
            "held-out sequences and masks, probes and fine-tuning, none of it charged to the budget",
        ],
        "endpoints": endpoints,
        "runs": list(runs),
        "references": list(references),
        "verdicts": verdicts,
        "notes": _notes(config, len(verdicts), false, teacher) + _at_baseline(endpoints, runs),
    }


def _describe(config: Config, arm: Arm, price: Price, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = next(run for run in runs if run["arm"] == arm.name)
    model = arm.trained["model"]
    return {
        "terms": [plain(to_dict(term)) for term in terms_of(arm.name, config.arms[arm.name])],
        "price": price.to_json(),
        "steps": affordable_steps(int(config.budget.flops), price),
        "tokens": own["tokens_seen"],
        "epochs": own["epochs"],
        "trains_mlm_head": all(jax.tree.leaves(model["mlm"])),
        "untrained": _untrained(model),
    }


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
    """What arms of a study differ in: the objective, and what follows from its price."""

    def objective(arm: Mapping[str, Any]) -> str:
        return " + ".join(
            f"{term['weight']:g} {term['name']}"
            + (f" ({term['variant']})" if term["variant"] != "original" else "")
            + (f" {term['options']}" if term["options"] else "")
            for term in arm["terms"]
        )

    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "objective": objective,
        "FLOPs of a step": lambda arm: f"{arm['price']['total']:.4g}",
        "of them the teacher's": lambda arm: f"{arm['price']['teacher_forward'] / arm['price']['total']:.0%}",
        "steps (and length of the schedule)": lambda arm: f"{arm['steps']:,}",
        "tokens seen": lambda arm: f"{arm['tokens']:,}",
        "epochs": lambda arm: f"{arm['epochs']:.3f}",
        "parameters without a gradient": lambda arm: ", ".join(arm["untrained"]) or "none",
    }
    return [{"setting": name, "values": {arm: show(row) for arm, row in arms.items()}} for name, show in shown.items()]


def _notes(config: Config, count: int, false: float, teacher: Mapping[str, Any] | None) -> list[str]:
    notes = [
        f"{count} intervals at {config.evaluation.confidence:.0%} were looked at, unadjusted: were no two arms "
        f"different, about {false:.1f} of them would leave out zero by chance.",
        "The intervals cover seeds (start, order, masks). They do not cover the choice of test rows, corpus, teacher "
        "or hyperparameters; the arms share one setting and were not tuned one by one.",
        "FLOPs are XLA's count of the training step, the teacher's forward passes included. What the teacher cost "
        "before, and evaluation, are not in the budget.",
    ]
    if teacher and teacher["head_flops"]:
        notes.append(
            f"Fitting the teacher's MLM head cost {teacher['head_flops']:.3g} FLOPs besides; only arms with a logit "
            "term use it."
        )
    if len(config.seeds) < 2:
        notes.append("With one seed there is no interval, and so no verdict.")
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
