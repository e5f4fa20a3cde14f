"""The named arms: the paper's, the methods' own, and those of the published code as it ran."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from kdjax.config import ArmConfig, PhaseConfig, StartConfig, TermConfig
from kdjax.errors import InputError, nearest
from kdjax.objectives import get
from kdjax.objectives.objective import Objective
from kdjax.objectives.schedule import is_zero

STEP_FIGURES = ("loss", "grad_norm")
"""Keys of the figures that a step has besides its terms (`kdjax.training.step`)."""


@dataclass(frozen=True)
class Preset:
    """A named arm.

    Attributes:
        summary: line on what the arm does.
        asks: features the teacher must have.
        source: paper that the arm comes from.
        arm: settings of the arm; `phases` and `start` are always set.
    """

    summary: str
    asks: str
    source: str
    arm: ArmConfig


def _arm(*terms: TermConfig, start: StartConfig = StartConfig(), **settings: Any) -> ArmConfig:
    return ArmConfig(phases=(PhaseConfig(terms),), start=start, **settings)


def _as_run(*terms: TermConfig) -> ArmConfig:
    """Build an arm of the published scripts.

    Its student, learning rate and fine-tuning depend on whether it distils.
    """
    if any(term.name != "mlm" for term in terms):
        return _arm(
            *terms,
            student={"norm": "post", "embedding_norm": True},
            optimizer={"learning_rate": 5e-4, "warmup": 0.06},
            finetune={"warmup": 0.0, "weight_decay": 0.0, "eps": 1e-6, "clip": 1.0},
        )
    return _arm(
        *terms,
        student={"norm": "pre", "embedding_norm": False},
        optimizer={"learning_rate": 1e-3, "warmup": 0.06},
        finetune={"warmup": 50.0, "weight_decay": 0.01, "eps": 1e-8, "clip": 1.0},
    )


def _published(name: str) -> TermConfig:
    return TermConfig(name, variant="bui2024")


_BUI = "Bui et al. 2024, arXiv 2404.19319"
_HEAD = "an MLM head; the same vocabulary"
_HEADS = "as many heads as the student"

PRESETS: dict[str, Preset] = {
    "scratch": Preset(
        "masked language modelling", "nothing", "Devlin et al. 2019", _arm(TermConfig("mlm"))
    ),
    "logit": Preset(
        "MLM + the teacher's distribution at the masked positions (vanilla KD)",
        _HEAD,
        "Hinton et al. 2015, arXiv 1503.02531",
        _arm(TermConfig("mlm"), TermConfig("logit")),
    ),
    "tinybert": Preset(
        "attention scores and hidden states of all layers, uniform map, learned projection; no MLM",
        f"{_HEADS}; a whole multiple of its layers",
        "Jiao et al. 2020, arXiv 1909.10351",
        _arm(TermConfig("attention_mse"), TermConfig("hidden_mse")),
    ),
    "minilm": Preset(
        "query, key and value relations of the last layer (MiniLMv2); no MLM",
        "a width with a common divisor",
        "Wang et al. 2021, arXiv 2012.15828",
        _arm(TermConfig("relation")),
    ),
    "distilbert": Preset(
        "5 x logit (T = 2, all positions) + 2 x MLM + cosine of last hidden states; starts from "
        "the teacher's layers",
        f"{_HEAD}; the same width",
        "Sanh et al. 2019, arXiv 1910.01108",
        _arm(
            TermConfig("logit", 5.0, options={"temperature": 2.0, "positions": "all"}),
            TermConfig("mlm", 2.0),
            TermConfig("cosine"),
            start=StartConfig("teacher", "spread"),
        ),
    ),
    "minilm_v1": Preset(
        "attention distributions and value relations of the last layer; no MLM",
        _HEADS,
        "Wang et al. 2020, arXiv 2002.10957",
        _arm(TermConfig("attention_kl"), TermConfig("value_relation")),
    ),
    "attention_transfer": Preset(
        "attention distributions of the last layer alone",
        _HEADS,
        "Wang et al. 2020, arXiv 2002.10957",
        _arm(TermConfig("attention_kl")),
    ),
    "attention_mse+hidden_mse": Preset(
        "attention scores and hidden states of the last layer",
        _HEADS,
        _BUI,
        _arm(
            TermConfig("attention_mse", options={"layers": "last"}),
            TermConfig("hidden_mse", options={"layers": "last"}),
        ),
    ),
    "attention_kl+hidden_mse": Preset(
        "attention distributions and hidden states of the last layer",
        _HEADS,
        _BUI,
        _arm(TermConfig("attention_kl"), TermConfig("hidden_mse", options={"layers": "last"})),
    ),
    "two_stage": Preset(
        "MLM for half of the budget, then minilm_v1",
        _HEADS,
        f"{_BUI}, by its intent: the published code cannot reach it",
        ArmConfig(
            phases=(
                PhaseConfig((TermConfig("mlm"),), until=0.5),
                PhaseConfig((TermConfig("attention_kl"), TermConfig("value_relation"))),
            ),
            start=StartConfig(),
        ),
    ),
    "paper_as_run_scratch": Preset(
        "scratch as the published scripts ran it: pre-LN, learning rate 1e-3",
        "nothing",
        _BUI,
        _as_run(TermConfig("mlm")),
    ),
    "paper_as_run_logit": Preset(
        "logit as the published scripts ran it: the logit term averaged over the vocabulary",
        _HEAD,
        _BUI,
        _as_run(TermConfig("mlm"), _published("logit")),
    ),
    "paper_as_run_tinybert": Preset(
        "tinybert as the published scripts ran it: first and last layer's scores, last hidden "
        "states",
        f"{_HEADS}; the same width",
        _BUI,
        _as_run(
            _published("first_scores_mse"), _published("attention_mse"), _published("hidden_mse")
        ),
    ),
    "paper_as_run_minilm": Preset(
        "minilm as the published scripts ran it: as many relation heads as attention heads, "
        "padding included",
        _HEADS,
        _BUI,
        _as_run(_published("relation")),
    ),
}
"""The paper's four arms by its own names, then the originals, then what its scripts did besides."""


def arm_of(name: str, config: ArmConfig) -> ArmConfig:
    """Return a recipe's arm with `phases` and `start` set and its preset's settings filled in.

    Args:
        name: the arm's name in the recipe; without preset, terms and phases it names its preset.
        config: the arm's settings in the recipe.

    Raises:
        InputError: no such preset, more than one of preset, terms and phases, or phases that do not
            fill the budget.
    """
    # One way of saying what it does.
    settings = [setting for setting in ("preset", "terms", "phases") if getattr(config, setting)]
    if len(settings) > 1:
        raise InputError(f"arms.{name}: found {' and '.join(settings)}, expected one of them")
    if config.terms or config.phases:
        phases = config.phases or (PhaseConfig(config.terms),)
        arm = replace(config, phases=phases, terms=(), start=config.start or StartConfig())
    else:
        # The recipe's own settings go before the preset's.
        preset = _preset(name, config.preset or name)
        arm = replace(
            config,
            phases=preset.phases,
            start=config.start or preset.start,
            student={**preset.student, **config.student},
            optimizer={**preset.optimizer, **config.optimizer},
            finetune={**preset.finetune, **config.finetune},
        )
    # Phases follow one another and fill the budget.
    ends = [0.0, *(phase.until for phase in arm.phases)]
    if ends[-1] != 1 or not all(a < b for a, b in pairwise(ends)):
        raise InputError(
            f"arms.{name}: phases end at {ends[1:]}, expected ascending shares of the budget up to "
            "1"
        )
    return arm


def objectives_of(name: str, config: ArmConfig) -> tuple[Objective, ...]:
    """Return the objective of each phase of an arm.

    Terms whose weight is 0 throughout a phase are left out.

    Args:
        name: the arm's name in the recipe.
        config: the arm, from `arm_of`.

    Raises:
        InputError: a term that does not exist, an option it does not have, or a phase in which
            nothing counts.
    """
    objectives = []
    begin = 0.0
    for n, phase in enumerate(config.phases, start=1):
        where = f"arms.{name}: phase {n}" if len(config.phases) > 1 else f"arms.{name}"
        terms = []
        for key, settings in zip(_keys(phase), phase.terms, strict=True):
            # Built even where it does not count, so that a mistake in it is found.
            try:
                term = get(settings.name, settings.variant, **settings.options)
            except InputError as e:
                raise InputError(f"{where}: {e}") from None
            if not is_zero(settings.weight, begin, phase.until):
                terms.append((key, settings.weight, term))
        if not terms:
            raise InputError(f"{where}: every term has weight 0, expected at least one that counts")
        objectives.append(Objective(tuple(terms)))
        begin = phase.until
    return tuple(objectives)


def _keys(phase: PhaseConfig) -> list[str]:
    """Return the keys of a phase's terms: their names, numbered from the second of a name on.

    No key is another term's or one of the step's own figures, whatever a term of one's own is
    called.
    """
    keys: list[str] = []
    for term in phase.terms:
        name = term.name.rpartition(":")[2]
        key = name
        number = 1
        while key in keys or key in STEP_FIGURES:
            number += 1
            key = f"{name}_{number}"
        keys.append(key)
    return keys


def _preset(arm: str, preset: str) -> ArmConfig:
    if preset not in PRESETS:
        raise InputError(
            f"arms.{arm}: unknown arm {preset!r}{nearest(preset, PRESETS)}; or give its terms or "
            "phases"
        )
    return PRESETS[preset].arm
