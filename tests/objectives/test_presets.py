"""The named arms: what each is made of, and how a recipe's own settings join in."""

from __future__ import annotations

from typing import Any

import pytest

from kdjax.config import ArmConfig, PhaseConfig, Schedule, StartConfig, TermConfig
from kdjax.errors import InputError
from kdjax.objectives.presets import PRESETS, _keys, arm_of, objectives_of

MLM = TermConfig("mlm")
LOGIT = TermConfig("logit")


def terms(name: str) -> list[list[tuple[str, Any, str, dict[str, Any]]]]:
    """List phase by phase (name, weight, variant, options) of each term of a preset."""
    phases: list[list[tuple[str, Any, str, dict[str, Any]]]] = []
    for phase in PRESETS[name].arm.phases:
        phases.append([(t.name, t.weight, t.variant, t.options) for t in phase.terms])
    return phases


def test_presets_have_the_terms_of_their_papers() -> None:
    def plain(*names: str) -> list[tuple[str, float, str, dict[str, Any]]]:
        return [(name, 1.0, "original", {}) for name in names]

    last = {"layers": "last"}
    assert terms("scratch") == [plain("mlm")]
    assert terms("logit") == [plain("mlm", "logit")]
    assert terms("tinybert") == [plain("attention_mse", "hidden_mse")]
    assert terms("minilm") == [plain("relation")]
    assert terms("minilm_v1") == [plain("attention_kl", "value_relation")]
    assert terms("attention_transfer") == [plain("attention_kl")]
    assert terms("two_stage") == [plain("mlm"), plain("attention_kl", "value_relation")]
    assert terms("attention_mse+hidden_mse") == [
        [("attention_mse", 1.0, "original", last), ("hidden_mse", 1.0, "original", last)]
    ]
    assert terms("attention_kl+hidden_mse") == [
        [*plain("attention_kl"), ("hidden_mse", 1.0, "original", last)]
    ]
    assert terms("distilbert") == [
        [
            ("logit", 5.0, "original", {"temperature": 2.0, "positions": "all"}),
            ("mlm", 2.0, "original", {}),
            ("cosine", 1.0, "original", {}),
        ]
    ]
    assert PRESETS["distilbert"].arm.start == StartConfig("teacher", "spread")
    assert PRESETS["two_stage"].arm.phases[0].until == 0.5


def test_presets_of_the_published_scripts_differ_between_scratch_and_distillation() -> None:
    scratch = PRESETS["paper_as_run_scratch"].arm
    assert scratch.student == {"norm": "pre", "embedding_norm": False}
    assert scratch.optimizer["learning_rate"] == 1e-3
    for name in ("logit", "tinybert", "minilm"):
        arm = PRESETS[f"paper_as_run_{name}"].arm
        assert arm.student == {"norm": "post", "embedding_norm": True}
        assert arm.optimizer == {"learning_rate": 5e-4, "warmup": 0.06}
        assert arm.finetune != scratch.finetune
        assert all(
            variant == "bui2024"
            for (t, _, variant, _) in terms(f"paper_as_run_{name}")[0]
            if t != "mlm"
        )
    assert [t for t, *_ in terms("paper_as_run_tinybert")[0]] == [
        "first_scores_mse",
        "attention_mse",
        "hidden_mse",
    ]
    assert [t for t, *_ in terms("paper_as_run_logit")[0]] == ["mlm", "logit"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_complete_and_can_be_built(name: str) -> None:
    arm = arm_of(name, ArmConfig())
    assert arm.start is not None
    assert arm.phases[-1].until == 1
    objectives = objectives_of(name, arm)
    assert [len(o.terms) for o in objectives] == [len(phase.terms) for phase in arm.phases]
    uses_teacher = any(objective.needs_teacher for objective in objectives)
    assert uses_teacher == (PRESETS[name].asks != "nothing")
    assert PRESETS[name].summary
    assert PRESETS[name].source


def test_arm_of_takes_a_recipes_settings_before_the_presets() -> None:
    config = ArmConfig(
        preset="paper_as_run_scratch",
        optimizer={"learning_rate": 2e-3},
        start=StartConfig("teacher"),
        student={},
    )
    resolved = arm_of("mine", config)
    assert resolved.optimizer == {"learning_rate": 2e-3, "warmup": 0.06}
    assert resolved.student == {"norm": "pre", "embedding_norm": False}
    assert resolved.start == StartConfig("teacher")
    assert resolved.phases == PRESETS["scratch"].arm.phases


def test_arm_of_terms_written_out_has_one_phase() -> None:
    resolved = arm_of("mine", ArmConfig(terms=(MLM, LOGIT)))
    assert resolved.phases == (PhaseConfig((MLM, LOGIT)),)
    assert resolved.start == StartConfig()


def test_objectives_of_terms_of_one_name_are_numbered() -> None:
    pair = (TermConfig("relation"), TermConfig("relation", options={"teacher_layer": 2}))
    (objective,) = objectives_of("mine", arm_of("mine", ArmConfig(terms=pair)))
    assert [key for key, _, _ in objective.terms] == ["relation", "relation_2"]


def test_keys_of_terms_are_no_other_terms_and_no_figure_of_the_step() -> None:
    names = ("relation", "relation", "mine:relation_2", "mine:loss", "mine:grad_norm")
    keys = _keys(PhaseConfig(tuple(map(TermConfig, names))))
    assert keys == ["relation", "relation_2", "relation_2_2", "loss_2", "grad_norm_2"]


def test_objectives_leave_a_term_out_of_phases_in_which_its_weight_is_zero() -> None:
    fading = TermConfig("logit", Schedule("linear", ((0.0, 1.0), (0.5, 0.0))))
    late = TermConfig("relation", Schedule("step", ((0.0, 0.0), (0.5, 2.0))))
    terms = (MLM, fading, late)
    arm = ArmConfig(phases=(PhaseConfig(terms, until=0.5), PhaseConfig(terms)))
    first, second = objectives_of("mine", arm_of("mine", arm))
    assert [key for key, _, _ in first.terms] == ["mlm", "logit"]
    assert [key for key, _, _ in second.terms] == ["mlm", "relation"]


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (ArmConfig(), "arms.a: unknown arm 'a'.*or give its terms or phases"),
        (ArmConfig(preset="minilmv1"), "unknown arm 'minilmv1' .did you mean 'minilm_v1'"),
        (ArmConfig(preset="logit", terms=(MLM,)), "found preset and terms, expected one of them"),
        (ArmConfig(terms=(MLM,), phases=(PhaseConfig((MLM,)),)), "found terms and phases"),
        (
            ArmConfig(phases=(PhaseConfig((MLM,), until=0.5),)),
            r"phases end at \[0.5\], expected ascending",
        ),
        (
            ArmConfig(phases=(PhaseConfig((MLM,)), PhaseConfig((MLM,)))),
            r"phases end at \[1.0, 1.0\]",
        ),
        (
            ArmConfig(phases=(PhaseConfig((MLM,), 0.7), PhaseConfig((MLM,), 0.5))),
            r"phases end at \[0.7, 0.5\]",
        ),
        (
            ArmConfig(phases=(PhaseConfig((MLM,), 0.5), PhaseConfig(()))),
            "arms.a: phase 2: every term has weight 0",
        ),
        (ArmConfig(terms=(TermConfig("mlm", 0.0),)), "arms.a: every term has weight 0"),
        (ArmConfig(terms=(TermConfig("mln"),)), "arms.a: unknown term 'mln'"),
    ],
)
def test_arm_that_cannot_be_built_is_refused(config: ArmConfig, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as e:
        objectives_of("a", arm_of("a", config))
    assert "\n" not in str(e.value)


def test_phase_that_ends_after_the_budget_is_refused() -> None:
    with pytest.raises(InputError, match=r"phase: until is 1\.5, expected"):
        ArmConfig(phases=(PhaseConfig((MLM,), 1.5), PhaseConfig((MLM,))))
