"""The endpoints of a study: what its models are measured by, and on which arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kdjax.config import Config, EvaluationConfig, Protocol
from kdjax.config.finetune import grid_size
from kdjax.config.suites import SUITE_TITLES
from kdjax.config.verdicts import Scale
from kdjax.data.minimal_pairs import PairSet
from kdjax.data.tasks.suite import suite_mean
from kdjax.data.tasks.task import Task
from kdjax.evaluation.metric import METRICS, baseline
from kdjax.evaluation.pair_scores import CHANCE
from kdjax.results.text import CorpusFacts
from kdjax.results.verdicts import MeasuredEndpoint
from kdjax.training.arm import Arm


def endpoints_of(
    config: Config,
    corpus: CorpusFacts,
    tasks: Sequence[Task],
    minimal_pairs: Sequence[PairSet],
    arms: Mapping[str, Arm],
) -> list[MeasuredEndpoint]:
    """List the endpoints of a study: losses on held-out text, minimal pairs, then tasks.

    Args:
        config: resolved recipe, with `evaluation`.
        corpus: facts of the text.
        tasks: labelled tasks.
        minimal_pairs: sets of minimal pairs.
        arms: arm -> what it trains; an arm without an MLM head has no endpoint that needs one.
    """
    with_head = tuple(name for name, arm in arms.items() if arm.trains_mlm_head)
    endpoints = _losses(config, corpus, "mlm", "mlm_loss", "Held-out MLM loss", with_head)
    if config.evaluation.mlm_probe.tokens:
        label = "MLM probe, held-out loss"
        endpoints += _losses(config, corpus, "mlm_probe", "mlm_probe", label, tuple(arms))

    endpoints += [_pairs(pairs, with_head) for pairs in minimal_pairs]

    # Every arm has hidden states, so scores on tasks exist for all.
    for protocol in config.evaluation.protocols:
        label = protocol_label(config.evaluation, protocol)
        of_protocol: list[MeasuredEndpoint] = []
        for task in tasks:
            of_protocol += _scores(protocol, label, task, tuple(arms))
        of_protocol += _suite_mean(config.evaluation.suite, protocol, label, of_protocol)
        endpoints += of_protocol
    return endpoints


def protocol_label(evaluation: EvaluationConfig, protocol: Protocol) -> str:
    """Return a protocol of scoring tasks in words, with how many trials a score has.

    Args:
        evaluation: settings of evaluation, with those of fine-tuning.
        protocol: probe, grid, few_shot or the one fixed setting.
    """
    finetune = evaluation.finetune
    if protocol == "probe":
        return "linear probe, best layer"
    label = "fine-tuned, one setting"
    if protocol == "grid":
        size = grid_size(finetune.learning_rates, finetune.batch_sizes, finetune.epoch_counts)
        label = f"fine-tuned, best of {size} settings"
    if protocol == "few_shot":
        few = finetune.few_shot
        label = f"fine-tuned on {few.examples} rows, {few.draws} draws"
    if finetune.seeds > 1:
        label += f", {finetune.seeds} seeds"
    return label


def _suite_mean(
    suite: str, protocol: str, label: str, endpoints: Sequence[MeasuredEndpoint]
) -> list[MeasuredEndpoint]:
    """Return the mean of a suite by a protocol, where all of its tasks are measured.

    Args:
        suite: name of the suite; empty: none.
        protocol: name of the protocol.
        label: the protocol in words.
        endpoints: the protocol's endpoints on all tasks.
    """
    if not suite:
        return []
    baselines: dict[str, float] = {}
    for endpoint in endpoints:
        assert endpoint.baseline is not None  # every task has one
        baselines[endpoint.name.removeprefix(f"{protocol}.")] = endpoint.baseline
    mean = suite_mean(suite, baselines)
    if mean is None:
        return []
    return [
        replace(
            endpoints[0],
            name=f"{protocol}.{suite}",
            label=f"{SUITE_TITLES[suite]} mean, {label}",
            unit="mean of the tasks' scores",
            rows=sum(endpoint.rows for endpoint in endpoints),
            baseline=mean,
            # Its tasks may be scored by correlations, too; most are shares of rows.
            scale="accuracy",
        )
    ]


def _pairs(pairs: PairSet, with_head: tuple[str, ...]) -> MeasuredEndpoint:
    """Return the accuracy on a set of minimal pairs, which needs a trained MLM head."""
    return MeasuredEndpoint(
        name=f"minimal_pairs.{pairs.name}",
        label=f"{pairs.name}, minimal pairs",
        unit="accuracy",
        better="higher",
        kind="minimal_pairs",
        arms=with_head,
        rows=len(pairs),
        baseline=CHANCE,
    )


def _scores(protocol: str, label: str, task: Task, arms: tuple[str, ...]) -> list[MeasuredEndpoint]:
    """Return the scores on a task's reported rows, a protocol's."""
    baselines = baseline(task)
    unit = " and ".join(METRICS[name].label for name in task.metrics)
    if len(task.metrics) > 1:
        unit = f"mean of {unit}"
    is_correlation = all(METRICS[name].lowest < 0 for name in task.metrics)
    scale: Scale = "correlation" if is_correlation else "accuracy"
    return [
        MeasuredEndpoint(
            name=f"{protocol}.{result}",
            label=f"{result}, {label}",
            unit=unit,
            better="higher",
            kind=protocol,
            arms=arms,
            rows=len(split),
            baseline=baselines[result],
            scale=scale,
        )
        for result, split in task.reported.items()
    ]


def _losses(
    config: Config, corpus: CorpusFacts, kind: str, name: str, label: str, arms: tuple[str, ...]
) -> list[MeasuredEndpoint]:
    """Return a held-out loss on the study's own text and on each of `evaluation.texts`."""
    # A text may have fewer sequences than the recipe asks for.
    limit = config.evaluation.mlm_sequences
    sequences = min(limit, corpus.sequences["validation"])
    on_own_text = MeasuredEndpoint(
        name, label, "nats", "lower", kind, arms, sequences, None, scale="nats"
    )
    endpoints = [on_own_text]
    for text, facts in corpus.texts.items():
        endpoints.append(
            replace(
                on_own_text,
                name=f"{name}.{text}",
                label=f"{label}, {text}",
                rows=min(limit, facts.sequences),
            )
        )
    return endpoints
