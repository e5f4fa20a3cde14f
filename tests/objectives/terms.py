"""Every term between the models of `examples`, with what is known of it by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdjax.objectives import FeatureRequest, Term, get


@dataclass(frozen=True)
class Example:
    """A term, and what is known of it by hand.

    Attributes:
        name: the term's name.
        student: features that it asks of `STUDENT`, by its equation.
        teacher: features that it asks of `TEACHER`; none where it looks at no teacher.
        mean_over: number that its loss of `packed` is a mean over; None: the batch must not be
            split.
        options: the term's options.
        variant: the term's variant.
        zero_if_equal: whether it is 0 where student and teacher are equal. It is not without a
            teacher, for a cross-entropy, for correlations of padded rows (0 in the published code),
            and for projections, unless they are the identity.
    """

    name: str
    student: FeatureRequest
    teacher: FeatureRequest
    mean_over: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    variant: str = "original"
    zero_if_equal: bool = True

    @property
    def term(self) -> Term:
        """Return the term."""
        return get(self.name, self.variant, **self.options)


def asks(layers: tuple[int, ...], *kinds: str) -> FeatureRequest:
    """Return a request for features of some layers, by the names of their kinds."""
    by_kind: dict[str, Any] = dict.fromkeys(kinds, frozenset(layers))
    return FeatureRequest(**by_kind)


PAIRS = 4 + 9 + 1 + 36 + 4 + 4
"""Pairs of positions in the documents of `packed`: of 2, 3 and 1 tokens; of 6; of 2 and 2. One of
its 9 slots is unused."""

EXAMPLES: dict[str, Example] = {
    "mlm": Example("mlm", FeatureRequest(logits=True), FeatureRequest(), 8, zero_if_equal=False),
    "logit": Example(
        "logit",
        FeatureRequest(logits=True),
        FeatureRequest(logits=True),
        8,
        options={"temperature": 2.0},
    ),
    "logit all": Example(
        "logit",
        FeatureRequest(token_logits=True),
        FeatureRequest(token_logits=True),
        16,
        options={"temperature": 2.0, "positions": "all"},
    ),
    "cosine": Example("cosine", asks((2,), "hidden"), asks((4,), "hidden"), 16),
    "attention_mse": Example(
        "attention_mse", asks((1, 2), "scores"), asks((2, 4), "scores"), PAIRS
    ),
    "attention_mse last": Example(
        "attention_mse",
        asks((2,), "scores"),
        asks((4,), "scores"),
        PAIRS,
        options={"layers": "last"},
    ),
    "attention_mse lower": Example(
        "attention_mse",
        asks((1, 2), "scores"),
        asks((1, 2), "scores"),
        PAIRS,
        options={"layers": "lower"},
    ),
    "attention_mse upper": Example(
        "attention_mse",
        asks((1, 2), "scores"),
        asks((3, 4), "scores"),
        PAIRS,
        options={"layers": "upper"},
    ),
    "attention_mse pairs": Example(
        "attention_mse",
        asks((1,), "scores"),
        asks((2, 3), "scores"),
        PAIRS,
        options={"layers": [[1, 3], [1, 2]]},
    ),
    "hidden_mse": Example(
        "hidden_mse", asks((0, 1, 2), "hidden"), asks((0, 2, 4), "hidden"), 16, zero_if_equal=False
    ),
    "hidden_mse last": Example(
        "hidden_mse",
        asks((2,), "hidden"),
        asks((4,), "hidden"),
        16,
        options={"layers": "last"},
        zero_if_equal=False,
    ),
    "hidden_mse lower": Example(
        "hidden_mse",
        asks((0, 1, 2), "hidden"),
        asks((0, 1, 2), "hidden"),
        16,
        options={"layers": "lower"},
        zero_if_equal=False,
    ),
    "hidden_mse upper": Example(
        "hidden_mse",
        asks((0, 1, 2), "hidden"),
        asks((0, 3, 4), "hidden"),
        16,
        options={"layers": "upper"},
        zero_if_equal=False,
    ),
    "hidden_mse pairs": Example(
        "hidden_mse",
        asks((0,), "hidden"),
        asks((3,), "hidden"),
        16,
        options={"layers": [[0, 3]]},
        zero_if_equal=False,
    ),
    "relation": Example(
        "relation",
        asks((2,), "query", "key", "value"),
        asks((4,), "query", "key", "value"),
        16,
        options={"relation_heads": 4},
    ),
    "relation layer 3": Example(
        "relation",
        asks((2,), "key", "value"),
        asks((3,), "key", "value"),
        16,
        options={"relation_heads": 2, "teacher_layer": 3, "query": 0.0, "value": 2.0},
    ),
    "attention_kl": Example("attention_kl", asks((2,), "scores"), asks((4,), "scores"), 16),
    "attention_kl layer 2": Example(
        "attention_kl", asks((2,), "scores"), asks((2,), "scores"), 16, options={"teacher_layer": 2}
    ),
    "value_relation": Example("value_relation", asks((2,), "value"), asks((4,), "value"), 16),
    "hidden_cls": Example("hidden_cls", asks((2,), "hidden"), asks((4,), "hidden"), 6),
    "hidden_concat": Example(
        "hidden_concat",
        asks((1, 2), "hidden"),
        asks((1, 2, 3, 4), "hidden"),
        16,
        zero_if_equal=False,
    ),
    "pearson": Example("pearson", asks((2,), "scores"), asks((4,), "scores"), 15),
    "pearson head": Example(
        "pearson", asks((2,), "scores"), asks((4,), "scores"), PAIRS - 1, options={"axes": "head"}
    ),
    "mlm bui2024": Example(
        "mlm",
        FeatureRequest(logits=True),
        FeatureRequest(),
        8,
        variant="bui2024",
        zero_if_equal=False,
    ),
    "logit bui2024": Example(
        "logit",
        FeatureRequest(logits=True),
        FeatureRequest(logits=True),
        8,
        variant="bui2024",
        zero_if_equal=False,
    ),
    "attention_mse bui2024": Example(
        "attention_mse", asks((2,), "scores"), asks((4,), "scores"), 3, variant="bui2024"
    ),
    "first_scores_mse bui2024": Example(
        "first_scores_mse", asks((1,), "scores"), asks((1,), "scores"), 3, variant="bui2024"
    ),
    "hidden_mse bui2024": Example(
        "hidden_mse", asks((2,), "hidden"), asks((4,), "hidden"), 3, variant="bui2024"
    ),
    "relation bui2024": Example(
        "relation",
        asks((2,), "query", "key", "value"),
        asks((4,), "query", "key", "value"),
        3,
        variant="bui2024",
    ),
    "attention_kl bui2024": Example(
        "attention_kl", asks((2,), "scores"), asks((4,), "scores"), 3, variant="bui2024"
    ),
    "value_relation bui2024": Example(
        "value_relation", asks((2,), "value"), asks((4,), "value"), 3, variant="bui2024"
    ),
    "pearson bui2024": Example(
        "pearson",
        asks((2,), "scores"),
        asks((4,), "scores"),
        None,
        variant="bui2024",
        zero_if_equal=False,
    ),
}
"""Every term in both its variants, with options, by a label."""

# What a map does is tested once, in `test_layer_maps.py`; properties need no term twice for it.
MAPPED = frozenset(
    label
    for label in EXAMPLES
    if label.endswith((" last", " lower", " upper", " pairs", " layer 2"))
)
"""Those that differ from another by their layer map alone."""
