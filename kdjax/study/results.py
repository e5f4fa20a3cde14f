"""What a study found, as plain values: the content of `results.json`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
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
from kdjax.files import digest
from kdjax.models import abstract_params, count_params
from kdjax.study import differences, notes
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
        "config_digest": digest(values),
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
        "differences": differences.rows(described),
        "same": differences.shared(config, arms),
        "endpoints": endpoints,
        "runs": list(runs),
        "references": list(references),
        "verdicts": verdicts,
        "notes": [
            *notes.general(config, len(verdicts), false, teacher),
            *notes.of_arms(described, cache),
            *notes.at_baseline(endpoints, runs),
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
        "trains_mlm_head": arm.trains_mlm_head,
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
