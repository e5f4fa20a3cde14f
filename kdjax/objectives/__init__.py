"""Terms: pure losses between a student's features, a teacher's, and a batch."""

from __future__ import annotations

from typing import Any

from kdjax.errors import InputError, nearest
from kdjax.models.features import FeatureRequest, Features
from kdjax.objectives import custom
from kdjax.objectives.attention import (
    AttentionKl,
    AttentionKlBui2024,
    AttentionMse,
    AttentionMseBui2024,
    FirstScoresMseBui2024,
)
from kdjax.objectives.base import FeatureNeeds, Term
from kdjax.objectives.custom import term
from kdjax.objectives.hidden import Cosine, HiddenCls, HiddenConcat, HiddenMse, HiddenMseBui2024
from kdjax.objectives.logits import Logit, LogitBui2024
from kdjax.objectives.mlm import Mlm
from kdjax.objectives.pearson import Pearson, PearsonBui2024
from kdjax.objectives.relations import (
    Relation,
    RelationBui2024,
    ValueRelation,
    ValueRelationBui2024,
)

__all__ = ["FeatureNeeds", "FeatureRequest", "Features", "Term", "get", "registered", "term"]

_TERMS: dict[str, dict[str, custom.Kind]] = {
    "mlm": {"original": Mlm, "bui2024": Mlm},
    "logit": {"original": Logit, "bui2024": LogitBui2024},
    "cosine": {"original": Cosine},
    "attention_mse": {"original": AttentionMse, "bui2024": AttentionMseBui2024},
    "first_scores_mse": {"bui2024": FirstScoresMseBui2024},
    "hidden_mse": {"original": HiddenMse, "bui2024": HiddenMseBui2024},
    "relation": {"original": Relation, "bui2024": RelationBui2024},
    "attention_kl": {"original": AttentionKl, "bui2024": AttentionKlBui2024},
    "value_relation": {"original": ValueRelation, "bui2024": ValueRelationBui2024},
    "hidden_cls": {"original": HiddenCls},
    "hidden_concat": {"original": HiddenConcat},
    "pearson": {"original": Pearson, "bui2024": PearsonBui2024},
}


def registered() -> dict[str, dict[str, custom.Kind]]:
    """Return the class of each term that `get` knows without a module, by name and variant."""
    return {name: dict(variants) for name, variants in _TERMS.items()}


def get(name: str, variant: str = "original", **options: Any) -> Term:
    """Return a term by its name.

    Args:
        name: one of `registered`, such as mlm or relation; or `module:attribute`, a term of your
            own (`kdjax.objectives.term`), whose module is imported and so run.
        variant: `original`, what the method's own paper says, or `bui2024`, what the code of arXiv
            2404.19319 computes.
        options: the term's own: the fields of its dataclass, or the keyword-only arguments of its
            function.

    Raises:
        InputError: an unknown name, variant or option, or a value the option cannot take.

    Example:
        >>> term = get("logit", temperature=2.0)
        >>> term.temperature, term.needs_teacher
        (2.0, True)
    """
    variants = {"original": custom.find(name)} if ":" in name else _TERMS.get(name)
    if variants is None:
        raise InputError(f"unknown term {name!r}{nearest(name, _TERMS)}")
    if variant not in variants:
        raise InputError(f"{name}: unknown variant {variant!r}{nearest(variant, variants)}")
    kind = variants[variant]
    known = custom.options_of(kind)
    for option in options:
        if option not in known:
            hint = nearest(option, known) or " (it has none)"
            raise InputError(f"{name}: unknown option {option!r} of variant {variant}{hint}")
    for option, optional in known.items():
        if not optional and option not in options:
            raise InputError(f"{name}: found no option {option!r}, expected one: it has no default")
    try:
        return custom.make(kind, options)
    except InputError as e:
        raise InputError(f"{name}: {e}") from None
