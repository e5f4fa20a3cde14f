"""A recipe that names its tuning has to have the settings found there."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kdjax.config import ArmConfig, BudgetConfig, Config, RangeConfig, TuneConfig, to_dict
from kdjax.errors import InputError
from kdjax.results.tuning import TuningResults
from kdjax.storage.typed_json import to_plain
from kdjax.study.tuned import notes, tuning_of
from kdjax.tuning.search import TrialOutcome, TuningTrial
from kdjax.tuning.table import summary
from kdjax.tuning.tune import tuning_of_trials

RATE = "optimizer.learning_rate"
CONFIG = Config(
    arms={"scratch": ArmConfig(), "logit": ArmConfig(student={"dropout": 0.0})},
    budget=BudgetConfig(flops=4e12),
    tune=TuneConfig(
        trials=3,
        share=0.25,
        sampler="qmc",
        space={RATE: RangeConfig(low=1e-4, high=1e-2, log=True)},
        seeds=(7, 8),
    ),
)
TRIED = {
    "scratch": [(1e-3, 4.0), (2e-3, 3.5), (5e-3, None)],
    "logit": [(9e-3, 3.25), (2e-3, 3.5), (5e-3, 3.75)],
}


def trials(tried: list[tuple[float, float | None]]) -> list[TuningTrial]:
    return [
        TuningTrial(
            n,
            {RATE: rate},
            TrialOutcome(value, charged=10**12, total=2 * 10**12, steps=5, seconds=0.5),
        )
        for n, (rate, value) in enumerate(tried)
    ]


def written(directory: Path) -> TuningResults:
    tuning = tuning_of_trials(CONFIG, {arm: trials(tried) for arm, tried in TRIED.items()}, "lower")
    (directory / "tuning.json").write_text(json.dumps(to_plain(tuning)))
    return tuning


def tuned(directory: Path, scratch: float | None = 2e-3, logit: float = 9e-3) -> Config:
    arms = {
        "scratch": ArmConfig(optimizer={} if scratch is None else {"learning_rate": scratch}),
        "logit": ArmConfig(student={"dropout": 0.0}, optimizer={"learning_rate": logit}),
    }
    return replace(CONFIG, arms=arms, tuning=str(directory / "tuning.json"))


def test_tuning_holds_trials_and_best_settings_of_each_arm(tmp_path: Path) -> None:
    written(tmp_path)
    read = tuning_of(tuned(tmp_path))
    assert read is not None
    tuning = to_plain(read)
    assert json.loads(json.dumps(tuning)) == tuning
    assert {name: tuning[name] for name in ("endpoint", "trials", "share", "seeds", "sampler")} == {
        "endpoint": "mlm_loss",
        "trials": 3,
        "share": 0.25,
        "seeds": [7, 8],
        "sampler": "qmc",
    }
    assert tuning["budget"]["amount"] == 1e12
    # What each arm's trials came to.
    scratch = tuning["arms"]["scratch"]
    logit = tuning["arms"]["logit"]
    assert scratch["best"] == {"number": 1, "settings": {RATE: 2e-3}, "value": 3.5}
    assert scratch["values"] == [4.0, 3.5, None]
    assert (scratch["diverged"], logit["diverged"]) == (1, 0)
    assert (scratch["edges"], logit["edges"]) == ({}, {RATE: "high"})
    assert (scratch["charged"], scratch["total"]) == (3 * 10**12, 6 * 10**12)
    assert (scratch["steps"], scratch["seconds"]) == (15, 1.5)


def test_recipe_without_tuning_has_none() -> None:
    assert tuning_of(CONFIG) is None


def test_tuning_of_a_subset_of_arms_is_accepted(tmp_path: Path) -> None:
    written(tmp_path)
    config = tuned(tmp_path)
    tuning = tuning_of(replace(config, arms={"logit": config.arms["logit"]}))
    assert tuning is not None
    assert list(tuning.arms) == ["logit"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scratch": 1e-3},
            r"arms.scratch.optimizer.learning_rate is 0.001, expected 0.002, the best of "
            r".*tuning.json",
        ),
        ({"scratch": None}, r"arms.scratch.optimizer.learning_rate is None, expected 0.002"),
        ({"logit": 9.1e-3}, r"arms.logit.optimizer.learning_rate is 0.0091, expected 0.009"),
    ],
)
def test_settings_other_than_the_best_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    written(tmp_path)
    with pytest.raises(InputError, match=message):
        tuning_of(tuned(tmp_path, **changes))


def test_untuned_arm_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    config = tuned(tmp_path)
    with pytest.raises(
        InputError, match=r"arms.minilm: is not among the arms tuned in .*, scratch, logit"
    ):
        tuning_of(replace(config, arms={**config.arms, "minilm": ArmConfig()}))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"arms": {}}'])
def test_file_without_a_tuning_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tuning.json").write_text(content)
    with pytest.raises(InputError, match=r"tuning.json: expected"):
        tuning_of(tuned(tmp_path))


def test_arm_whose_trials_all_diverged_is_refused() -> None:
    with pytest.raises(InputError, match=r"arms.logit: 2 trials, all of them diverged"):
        tuning_of_trials(CONFIG, {"logit": trials([(1e-3, None), (2e-3, None)])}, "lower")


def test_config_digest_follows_the_recipe() -> None:
    def digest(config: Config) -> str:
        return tuning_of_trials(config, {"logit": trials(TRIED["logit"])}, "lower").config_digest

    assert digest(CONFIG) == digest(replace(CONFIG))
    assert digest(CONFIG) != digest(replace(CONFIG, seeds=(5,)))
    assert to_dict(CONFIG)["seeds"] == (0, 1, 2)


def test_notes_say_how_arms_were_tuned_and_what_to_doubt(tmp_path: Path) -> None:
    tuning = written(tmp_path)
    assert notes(tuning) == [
        "Every arm was tuned alike: 3 trials (qmc, seed 0) over optimizer.learning_rate, each "
        "with 1.00e12 FLOPs on "
        "seeds 7 and 8, judged by the MLM loss on held-out sequences that the evaluation does not "
        "use.",
        "Tuning took 3.00e12 FLOPs for scratch and 3.00e12 FLOPs for logit; that is not in the "
        "budget.",
        "scratch: 1 of 3 trials diverged.",
        "logit: the best optimizer.learning_rate, 0.009, lies at the high end of its range, which "
        "may be too narrow.",
    ]
    # A recipe that names the file says the same.
    from_recipe = tuning_of(tuned(tmp_path))
    assert from_recipe is not None
    assert notes(from_recipe) == notes(tuning)
    assert "probe.topic on the task's dev rows" in notes(replace(tuning, endpoint="probe.topic"))[0]


def test_tuning_table_has_a_row_for_each_arm(tmp_path: Path) -> None:
    printed = io.StringIO()
    Console(width=120, file=printed).print(summary(written(tmp_path)))
    lines = printed.getvalue().splitlines()
    arms = [line.split() for line in lines if line.split()[:1] in (["scratch"], ["logit"])]
    assert len(arms) == 2
    rows = {words[0]: words for words in arms}
    assert rows["scratch"] == [
        "scratch",
        "3",
        "(1",
        "diverged)",
        "0.002",
        "3.500",
        "3.500",
        "to",
        "4.000",
    ]
    assert rows["logit"] == [
        "logit",
        "3",
        "0.009",
        "(highest)",
        "3.250",
        "3.250",
        "to",
        "3.750",
    ]
