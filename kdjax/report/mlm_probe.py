"""What the report shows of MLM probes, and what shuffled words cost a model."""

from __future__ import annotations

from dataclasses import dataclass

from kdjax.report import summary
from kdjax.report.summary import Spread
from kdjax.results.runs import ReferenceModel, RunResult, probe_fit, shuffled_loss
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint


@dataclass(frozen=True)
class ProbeRow:
    """The probes of an arm's runs, or of a model for reference.

    Attributes:
        name: the arm, or the model.
        reference: whether the row is a model for reference.
        loss: held-out loss in nats, over seeds.
        accuracy: accuracy on the same masks, over seeds.
        gain: nats by which the second half of the tokens lowered the loss, over seeds.
        converged: number of probes that had converged.
        count: number of probes.
        tokens: number of tokens each probe was fitted on.
        flops: FLOPs of fitting one probe.
        layers: mean weight of each layer, from the embeddings on.
    """

    name: str
    reference: bool
    loss: Spread | None
    accuracy: Spread | None
    gain: Spread | None
    converged: int
    count: int
    tokens: int
    flops: int
    layers: str


@dataclass(frozen=True)
class ShuffledRow:
    """A held-out loss beside that on shuffled words.

    Attributes:
        name: the arm, or the model for reference.
        reference: whether the row is a model for reference.
        loss: cross-entropy in nats, over seeds.
        shuffled: loss on shuffled words.
        difference: increase of the loss by shuffling, seed by seed.
    """

    name: str
    reference: bool
    loss: Spread | None
    shuffled: Spread | None
    difference: Spread | None


def probes(results: Results) -> list[ProbeRow]:
    """Describe the probes of every arm and reference model, on the study's own text.

    Args:
        results: the content of results.json.
    """
    described = []
    for name, reference, rows in _models(results):
        # A probe is not fitted where the recipe gives it no tokens.
        probed = [row for row in rows if probe_fit(row)]
        fits = [fit for row in rows if (fit := probe_fit(row))]
        if not fits:
            continue
        # The mean weight of each layer over seeds.
        weights = zip(*(fit.layer_weights for fit in fits), strict=True)
        means = [sum(layer) / len(layer) for layer in weights]
        described.append(
            ProbeRow(
                name,
                reference,
                loss=summary.spread(row.metrics["mlm_probe"] for row in probed),
                accuracy=summary.spread(fit.accuracy for fit in fits),
                gain=summary.spread(fit.gain for fit in fits),
                converged=sum(fit.converged for fit in fits),
                count=len(fits),
                tokens=fits[0].tokens,
                flops=fits[0].flops,
                layers=" ".join(f"{weight:.2f}" for weight in means),
            )
        )
    return described


def shuffled(results: Results) -> list[tuple[Endpoint, list[ShuffledRow]]]:
    """Return, for each held-out loss, what shuffling the visible words costs each model.

    Args:
        results: the content of results.json.

    Returns:
        The endpoints that have the control, each with a row for every model that has it.
    """
    tables: list[tuple[Endpoint, list[ShuffledRow]]] = []
    for endpoint in results.endpoints:
        table = []
        for name, reference, rows in _models(results):
            # Differences are taken seed by seed, so a row needs both losses.
            losses = [_losses(row, endpoint.name) for row in rows]
            pairs = [pair for pair in losses if pair is not None]
            if pairs:
                table.append(
                    ShuffledRow(
                        name,
                        reference,
                        loss=summary.spread(loss for loss, _ in pairs),
                        shuffled=summary.spread(shuffled for _, shuffled in pairs),
                        difference=summary.spread(shuffled - loss for loss, shuffled in pairs),
                    )
                )
        if table:
            tables.append((endpoint, table))
    return tables


def _losses(row: RunResult | ReferenceModel, endpoint: str) -> tuple[float, float] | None:
    """Return a model's loss on text as written and on shuffled words; None without the control."""
    shuffled = shuffled_loss(row, endpoint)
    if shuffled is None:
        return None
    return row.metrics[endpoint], shuffled


def _models(results: Results) -> list[tuple[str, bool, list[RunResult | ReferenceModel]]]:
    """Return arms, then models for reference: name, whether it is for reference, and its rows."""
    # The key tells an arm from a reference of the same name.
    named: dict[tuple[str, bool], list[RunResult | ReferenceModel]] = {}
    for run in results.runs:
        named.setdefault((run.arm, False), []).append(run)
    for row in results.references:
        named.setdefault((row.name, True), []).append(row)
    return [(name, reference, rows) for (name, reference), rows in named.items()]
