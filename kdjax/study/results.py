"""What a study found, as plain values: the content of `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import jax

from kdjax.budget.accounting import Budget
from kdjax.config import Config, ModelConfig, plain, to_dict
from kdjax.data.corpus import Corpus
from kdjax.data.manifest import SPLITS
from kdjax.data.prepare.reference_losses import ReferenceLosses, reference_losses
from kdjax.data.tasks.labelled import Task
from kdjax.evaluation.statistics import compare_all, expected_false
from kdjax.files import digest
from kdjax.models import abstract_params, count_params
from kdjax.report import notes
from kdjax.study import differences, primary, tuned
from kdjax.study.cases import cases
from kdjax.study.machine import versions
from kdjax.study.manifest import Cost
from kdjax.study.study import Study
from kdjax.teacher_cache.manifest import CacheManifest, bias
from kdjax.training.arm import Arm


def collect(
    study: Study,
    runs: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    wall_clock: Mapping[str, float],
) -> dict[str, Any]:
    """Joins what a study's runs measured, and judges every pair of arms on every endpoint.

    Args:
        study: the study.
        runs: rows of results.json.
        references: the same of what was not trained here.
        wall_clock: seconds by kind, of the study's commands.
    """
    config = study.plan.config
    arms = study.plan.arms
    shared = study.artifacts
    corpus = corpus_facts(config, shared.corpus, reference_losses(shared.corpus), shared.texts)
    return {
        **versions(),
        "wall_clock": dict(wall_clock),
        **judged(
            config,
            arms,
            study.costs,
            runs,
            references,
            corpus=corpus,
            endpoints=_endpoints(config, corpus, shared.tasks, arms),
            teacher=teacher_facts([teacher.facts for teacher in shared.teachers]),
            cache=shared.cache.manifest if shared.cache else None,
            tuning=tuned.tuning_of(config),
        ),
    }


def judged(
    config: Config,
    arms: Mapping[str, Arm],
    costs: Mapping[str, Cost],
    runs: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    *,
    corpus: Mapping[str, Any],
    endpoints: Sequence[Mapping[str, Any]],
    teacher: Mapping[str, Any] | None,
    cache: CacheManifest | None,
    tuning: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What results.json says besides versions: a function of the recipe, its runs and facts.

    Args:
        config: the recipe.
        arms: its arms, made ready.
        costs: arm -> what its runs cost.
        runs: rows of results.json.
        references: the same of what was not trained here.
        corpus: see `corpus_facts`.
        endpoints: what is measured, as results.json has it.
        teacher: what is known of it, or of all together (`teacher_facts`); None where no arm needs
            one.
        cache: of stored teacher outputs; None where no arm reads them.
        tuning: how the arms were tuned (`kdjax.study.tuned.tuning_of`); None where they were not.
    """
    values = plain(to_dict(config))
    budget = Budget.of(config.budget)
    described = {name: _describe(arm, costs[name], runs) for name, arm in arms.items()}
    tested = primary.primary_endpoint(config.evaluation, endpoints, described, runs)
    verdicts = []
    for endpoint in endpoints:
        verdicts += primary.after_holm(_verdicts(config, endpoint, runs), tested)
    first = next(iter(arms.values())).student
    false = expected_false(len(verdicts), config.evaluation.confidence)
    enforced = budget.teacher if budget.kind == "flops" else None
    return {
        "config": values,
        "config_digest": digest(values),
        "budget": plain(asdict(budget)),
        "corpus": dict(corpus),
        "teacher": dict(teacher) if teacher else None,
        "cache": _stored(cache) if cache else None,
        "student": {
            **{
                name: getattr(first, name)
                for name in ("layers", "width", "heads", "ffn", "vocab_size")
            },
            **_parameters(first),
        },
        "arms": described,
        "differences": differences.rows(described),
        "same": differences.shared(config, arms),
        "endpoints": list(endpoints),
        "runs": list(runs),
        "references": list(references),
        "verdicts": verdicts,
        "primary": tested,
        "tuning": tuning,
        "cases": cases(described, runs, verdicts, teacher, enforced, config.budget.students),
        "notes": [
            *notes.general(config, len(verdicts), false, teacher),
            *(tuned.notes(tuning) if tuning else []),
            *notes.of_arms(described, cache),
            *notes.side_by_side(runs),
            *notes.at_baseline(endpoints, runs),
            *notes.unconverged(runs, references),
        ],
    }


def teacher_facts(teachers: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What is known of a study's teacher, or of its teachers together.

    Args:
        teachers: the facts of each, in the order in which students take them; none where no arm
            needs one.

    Returns: Those of the only one. Of several what the first has, with the means of `mlm_loss` and
        `mlm_accuracy`, and in `teachers` the facts of each.
    """
    if not teachers:
        return None
    if len(teachers) == 1:
        return dict(teachers[0])
    together = {name: value for name, value in teachers[0].items() if name != "params_sha256"}
    for figure in ("mlm_loss", "mlm_accuracy"):
        together[figure] = fmean(one[figure] for one in teachers)
    return {**together, "teachers": [dict(one) for one in teachers]}


def corpus_facts(
    config: Config, corpus: Corpus, losses: ReferenceLosses, texts: Mapping[str, Corpus]
) -> dict[str, Any]:
    """Say what is known of a study's text.

    Args:
        config: the recipe.
        corpus: the text that its runs see.
        losses: the text's own cross-entropies.
        texts: name -> held-out text from elsewhere.
    """
    return {
        "regime": config.data.regime,
        "documents": corpus.manifest.documents,
        "sequences": {split: corpus.sequences(split) for split in SPLITS},
        "tokens": {split: corpus.tokens(split) for split in SPLITS},
        "whole": {"sequences": corpus.manifest.sequences, "tokens": corpus.manifest.tokens},
        "digest": corpus.digest,
        "length": corpus.manifest.length,
        "views": config.data.mask_copies,
        "vocabulary": corpus.manifest.vocab_size,
        "tokenizer": corpus.manifest.tokenizer_sha256,
        "reference_losses": losses.figures(),
        "texts": {
            name: {
                "documents": text.manifest.documents["validation"],
                "sequences": text.sequences("validation"),
                "tokens": text.tokens("validation"),
                "digest": text.digest,
            }
            for name, text in texts.items()
        },
    }


def _parameters(model: ModelConfig) -> dict[str, int]:
    """How many parameters a model has, its MLM head's included: in all, and but for the embedding
    tables."""
    embeddings, others = count_params(abstract_params(model))
    return {"parameters": embeddings + others, "parameters_without_embeddings": others}


def _describe(arm: Arm, cost: Cost, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An arm as it ran; under a budget of hours, as its first run did."""
    own = next(run for run in runs if run["arm"] == arm.name)
    model = arm.trained["model"]
    return {
        "phases": [
            {
                "terms": [plain(to_dict(term)) for term in phase.terms],
                "until": phase.until,
                "price": price.to_json(),
                "batch": ran["batch"],
                "steps": ran["steps"],
            }
            for phase, price, ran in zip(arm.config.phases, cost.prices, own["phases"], strict=True)
        ],
        "start": plain(to_dict(arm.start)),
        "student": arm.config.student,
        "optimizer": arm.config.optimizer,
        "finetune": arm.config.finetune,
        "teacher": ("cached" if arm.stored else "online") if arm.uses_teacher else None,
        "steps": own["steps"],
        "spent": own["spent"],
        "tokens": own["tokens_seen"],
        "epochs": own["epochs"],
        **_parameters(arm.student),
        "trains_mlm_head": arm.trains_mlm_head,
        "needs_teacher": arm.needs_teacher,
        "untrained": _untrained(model),
    }


def _stored(cache: CacheManifest) -> dict[str, Any]:
    """What is known of stored teacher outputs: how they are stored, what they cost, how far they
    are off a position."""
    return {
        **cache.identity["cache"],
        "views": cache.views,
        "sequences": cache.sequences,
        "flops": cache.totals["flops"],
        "bytes": cache.bytes,
        "bias": bias(cache),
    }


def _untrained(tree: Any, name: str = "") -> list[str]:
    """The largest parts of a model that get no gradient, by dotted name."""
    if not any(jax.tree.leaves(tree)):
        return [name]
    if not isinstance(tree, dict):
        return []
    return [
        part
        for key, below in tree.items()
        for part in _untrained(below, f"{name}.{key}" if name else key)
    ]


def _endpoints(
    config: Config, corpus: Mapping[str, Any], tasks: Sequence[Task], arms: Mapping[str, Arm]
) -> list[dict[str, Any]]:
    with_head = [name for name, arm in arms.items() if arm.trains_mlm_head]
    rows = _losses(config, corpus, "mlm", "mlm_loss", "Held-out MLM loss", with_head)
    if config.evaluation.mlm_probe.tokens:
        rows += _losses(
            config, corpus, "mlm_probe", "mlm_probe", "MLM probe, held-out loss", list(arms)
        )
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


def _losses(
    config: Config, corpus: Mapping[str, Any], kind: str, name: str, label: str, arms: Sequence[str]
) -> list[dict[str, Any]]:
    """A held-out loss on the study's own text and on each of `evaluation.texts`."""
    own = {name: (label, corpus["sequences"]["validation"])}
    others = {
        f"{name}.{text}": (f"{label}, {text}", facts["sequences"])
        for text, facts in corpus.get("texts", {}).items()
    }
    return [
        {
            "name": endpoint,
            "label": words,
            "unit": "nats",
            "better": "lower",
            "kind": kind,
            "rows": min(config.evaluation.mlm_sequences, sequences),
            "baseline": None,
            "arms": list(arms),
        }
        for endpoint, (words, sequences) in {**own, **others}.items()
    ]


def _verdicts(
    config: Config, endpoint: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    name = endpoint["name"]
    better = endpoint["better"]
    values = {
        arm: {run["seed"]: run["metrics"][name] for run in runs if run["arm"] == arm}
        for arm in endpoint["arms"]
    }
    settings = config.evaluation
    found = compare_all(
        values, confidence=settings.confidence, margin=settings.margin, better=better
    )
    return [{"endpoint": name, **asdict(comparison)} for comparison in found]
