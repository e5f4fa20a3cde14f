"""What the report says of MLM probes: how they were fitted, and what shuffled words cost a
model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdjax.report import summary
from kdjax.report.summary import Endpoint, Results, Spread

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ProbeRow:
    """The probes of an arm's runs, or of a model for reference.

    Attributes:
        name: the arm, or the model.
        reference: whether it is a model for reference.
        loss: held-out loss in nats, over seeds.
        accuracy: on the same masks, over seeds.
        gain: by how many nats the second half of the tokens lowered the loss, over seeds.
        converged: how many probes had converged.
        count: how many there are.
        tokens: that each was fitted on.
        flops: of one probe.
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
        reference: whether it is a model for reference.
        loss: in nats, over seeds.
        shuffled: the same on shuffled words.
        difference: what shuffling costs, seed by seed.
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
    made = []
    for name, reference, rows in _models(results, "mlm_probe"):
        details = [row["details"]["mlm_probe"] for row in rows]
        weights = [one["layer_weights"] for one in details]
        means = [sum(layer) / len(layer) for layer in zip(*weights, strict=True)]
        made.append(
            ProbeRow(
                name,
                reference,
                loss=summary.spread(row["metrics"]["mlm_probe"] for row in rows),
                accuracy=summary.spread(one["accuracy"] for one in details),
                gain=summary.spread(one["gain"] for one in details),
                converged=sum(one["converged"] for one in details),
                count=len(details),
                tokens=details[0]["tokens"],
                flops=details[0]["flops"],
                layers=" ".join(f"{weight:.2f}" for weight in means),
            )
        )
    return made


def shuffled(results: Results) -> list[tuple[Endpoint, list[ShuffledRow]]]:
    """Say for each held-out loss what shuffling the visible words costs each model.

    Args:
        results: the content of results.json.

    Returns:
        The endpoints that have the control, each with a row for every model that has it.
    """
    found = []
    for endpoint in results["endpoints"]:
        name = endpoint["name"]
        rows = [
            ShuffledRow(
                model,
                reference,
                loss=summary.spread(row["metrics"][name] for row in of_model),
                shuffled=summary.spread(row["details"][name]["shuffled"] for row in of_model),
                difference=summary.spread(
                    row["details"][name]["shuffled"] - row["metrics"][name] for row in of_model
                ),
            )
            for model, reference, of_model in _models(results, name, "shuffled")
        ]
        if rows:
            found.append((endpoint, rows))
    return found


def _models(results: Results, endpoint: str, key: str = "") -> list[tuple[str, bool, Rows]]:
    """Arms, then models for reference: name, whether it is for reference, and its rows with such
    details."""
    named: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    for run in results["runs"]:
        named.setdefault((run["arm"], False), []).append(run)
    for row in results["references"]:
        named.setdefault((row["name"], True), []).append(row)
    made: list[tuple[str, bool, Rows]] = []
    for (name, reference), rows in named.items():
        detailed = [row for row in rows if endpoint in row["details"]]
        having = [row for row in detailed if not key or key in row["details"][endpoint]]
        if having:
            made.append((name, reference, having))
    return made
