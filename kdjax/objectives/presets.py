"""The named objectives: the paper's arms, each as its terms."""

from __future__ import annotations

from kdjax.config import ArmConfig, TermConfig
from kdjax.errors import InputError, nearest
from kdjax.objectives import get
from kdjax.objectives.objective import Objective

PRESETS: dict[str, tuple[TermConfig, ...]] = {
    # Masked language modelling alone (Devlin et al. 2019).
    "scratch": (TermConfig("mlm"),),
    # Vanilla distillation: MLM plus the teacher's soft targets at the masked positions (Hinton et al. 2015).
    "logit": (TermConfig("mlm"), TermConfig("logit")),
    # General distillation of TinyBERT (Jiao et al. 2020): attention scores and hidden states, no MLM.
    "tinybert": (TermConfig("attention_mse"), TermConfig("hidden_mse")),
    # MiniLMv2 (Wang et al. 2021): self-attention relations of the last layer, no MLM.
    "minilm": (TermConfig("relation"),),
}


def objective_of(name: str, config: ArmConfig) -> Objective:
    """The objective of a recipe's arm: its terms, or its preset's, or those of the preset it is named after.

    Raises:
        InputError: no such preset, a term that does not exist, or an option it does not have.
    """
    terms = terms_of(name, config)
    weighted = []
    for n, term in enumerate(terms):
        before = sum(other.name == term.name for other in terms[:n])
        key = f"{term.name}_{before + 1}" if before else term.name
        try:
            weighted.append((key, term.weight, get(term.name, term.variant, **term.options)))
        except InputError as e:
            raise InputError(f"arms.{name}: {e}") from None
    kept = tuple(item for item in weighted if item[1] != 0)
    if not kept:
        raise InputError(f"arms.{name}: every term has weight 0, expected at least one that counts")
    return Objective(kept)


def terms_of(name: str, config: ArmConfig) -> tuple[TermConfig, ...]:
    """The terms of a recipe's arm, as settings.

    Raises:
        InputError: no such preset, or both a preset and terms.
    """
    if config.terms and config.preset:
        raise InputError(f"arms.{name}: found both a preset and terms, expected one of them")
    return config.terms or _preset(name, config.preset or name)


def _preset(arm: str, preset: str) -> tuple[TermConfig, ...]:
    if preset not in PRESETS:
        raise InputError(f"arms.{arm}: unknown arm {preset!r}{nearest(preset, PRESETS)}; or give its terms")
    return PRESETS[preset]
