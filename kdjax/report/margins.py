"""The margin of a tie, by kind of endpoint, as a recipe's settings say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kdjax.report.phrases import listed, say
from kdjax.results.verdicts import Endpoint


def margin_of(config: Mapping[str, Any], endpoint: Endpoint) -> float:
    """Return the largest difference that does not matter on an endpoint.

    Args:
        config: resolved recipe as plain values; those of earlier versions have one margin for all.
        endpoint: the endpoint.
    """
    evaluation = config["evaluation"]
    of_scale = evaluation.get("margins", {}).get(endpoint.scale)
    margin: float = evaluation["margin"] if of_scale is None else of_scale
    return margin


def text(config: Mapping[str, Any], endpoints: Iterable[Endpoint]) -> str:
    """Return the margin of a tie as text: `±0.01`, or one for each kind of endpoint.

    Args:
        config: resolved recipe as plain values.
        endpoints: the endpoints that are shown.
    """
    by_scale = {endpoint.scale: margin_of(config, endpoint) for endpoint in endpoints}
    if len(set(by_scale.values())) == 1:
        return say("margin_same", margin=next(iter(by_scale.values())))
    texts = [say("margin_scale", margin=m, scale=scale) for scale, m in by_scale.items()]
    return listed(texts)
