"""A whole tuning, from text to the tuned recipe, on eight emulated devices."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from kdjax import recipes
from kdjax.config import ArmConfig, BudgetConfig, Config, RangeConfig
from kdjax.data.corpus import Corpus
from kdjax.dry_run.pricing import prices
from kdjax.errors import InputError
from kdjax.evaluation.mlm import held_out_loss
from kdjax.models import zoo
from kdjax.results.store import to_plain
from kdjax.study import runner
from kdjax.study.batches import held_out_batches, tuning_batches
from kdjax.study.tuned import tuning_of
from kdjax.training import program
from kdjax.tuning.trial import recipe_of
from kdjax.tuning.tune import tune
from tests import small_study

RATE = "optimizer.learning_rate"
ARMS = ("scratch", "logit")
TUNE = {
    "trials": 2,
    "share": 0.5,
    "seeds": [7],
    "sampler": "random",
    "space": {RATE: {"low": 1.0e-3, "high": 3.0e-2, "log": True}},
}


@dataclass(frozen=True)
class Tuning:
    config: Config
    out: Path
    found: dict[str, Any]
    printed: str
    programs: Any

    def trials(self, arm: str) -> list[dict[str, Any]]:
        trials: list[dict[str, Any]] = self.found["arms"][arm]["trials"]
        return trials

    def directory(self, arm: str, number: int) -> Path:
        return self.out / "trials" / arm / f"{number:03}"

    def run(self, arm: str, number: int, seed: int = 7) -> Path:
        return self.directory(arm, number) / "runs" / f"{arm}-seed{seed}"


def told(config: Config, out: Path) -> tuple[dict[str, Any], str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        found = tune(config, out)
    return to_plain(found), printed.getvalue()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two arms and a teacher that has its MLM head."""
    here = tmp_path_factory.mktemp("recipe")
    settings = small_study.settings(
        here, arms={arm: {} for arm in ARMS}, budget={"flops": 6e7}, tune=TUNE
    )
    settings["teacher"] = small_study.with_head(here / "teacher")
    return recipes.from_dict(settings)


@pytest.fixture(scope="module")
def tuning(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    out = tmp_path_factory.mktemp("tuning") / "out"
    program._program.cache_clear()
    found, printed = told(config, out)
    return Tuning(config, out, found, printed, program._program.cache_info())


@pytest.fixture
def copy(tuning: Tuning, tmp_path: Path) -> Path:
    shutil.copytree(tuning.out, tmp_path / "out")
    return tmp_path / "out"


def no_training(*args: object, **kwargs: object) -> None:
    pytest.fail("a finished run was trained again")


def with_tune(config: Config, **changes: Any) -> Config:
    return replace(config, tune=replace(config.tune, **changes))


def timeless(found: Mapping[str, Any]) -> Any:
    """Without what the clock said."""
    arms = json.loads(json.dumps(found["arms"]))
    for arm in arms.values():
        for one in (arm, *arm["trials"]):
            del one["seconds"]
    return {**found, "arms": arms}


def test_every_arm_has_its_trials_and_each_spends_its_share(tuning: Tuning) -> None:
    assert list(tuning.found["arms"]) == list(ARMS)
    costs = prices(tuning.config)
    for arm in ARMS:
        assert [trial["number"] for trial in tuning.trials(arm)] == [0, 1]
        (phase,) = costs[arm]
        for trial in tuning.trials(arm):
            assert 3e7 - phase["total"] < trial["charged"] <= 3e7
            assert trial["total"] == trial["charged"] == trial["steps"] * phase["total"]
            assert 1e-3 <= trial["settings"][RATE] <= 3e-2
        own = tuning.found["arms"][arm]
        assert own["charged"] == sum(trial["charged"] for trial in tuning.trials(arm))
        assert own["best"]["value"] == min(trial["value"] for trial in tuning.trials(arm))
    assert [t["settings"] for t in tuning.trials("scratch")] == [
        t["settings"] for t in tuning.trials("logit")
    ]
    assert tuning.found["trials"] == 2 and tuning.found["seeds"] == [7]


def test_settings_reach_the_runs(tuning: Tuning) -> None:
    for arm in ARMS:
        for trial in tuning.trials(arm):
            manifest = json.loads((tuning.run(arm, trial["number"]) / "manifest.json").read_text())
            assert manifest["arm_settings"]["optimizer"]["learning_rate"] == trial["settings"][RATE]
            assert manifest["seed"] == 7
            assert manifest["budget"]["amount"] == 3 * 10**7
    assert len({trial["value"] for arm in ARMS for trial in tuning.trials(arm)}) == 4


def test_a_value_is_the_loss_on_held_out_sequences_that_no_evaluation_uses(tuning: Tuning) -> None:
    (data,) = (tuning.out / "shared").glob("data-*")
    corpus = Corpus.open(data)
    ours, theirs = (of(tuning.config, corpus) for of in (tuning_batches, held_out_batches))
    rows = [
        {row.tobytes() for batch in made for row in batch["tokens"][batch["valid"].any(axis=1)]}
        for made in (ours, theirs)
    ]
    assert len(rows[0]) > 1 and len(rows[1]) == 16 and not rows[0] & rows[1]
    student = zoo.resolve(tuning.config.student)
    for arm in ARMS:
        for trial in tuning.trials(arm):
            flat = load_file(tuning.run(arm, trial["number"]) / "params.safetensors")
            params = unflatten_dict({tuple(name.split(".")): array for name, array in flat.items()})
            assert trial["value"] == pytest.approx(
                held_out_loss(student, params, ours).loss, rel=1e-5
            )
            assert trial["value"] != pytest.approx(
                held_out_loss(student, params, theirs).loss, rel=1e-5
            )


def test_learning_rates_share_a_compiled_program(tuning: Tuning) -> None:
    assert (tuning.programs.misses, tuning.programs.hits) == (len(ARMS), len(ARMS))


def test_what_arms_share_is_made_once(tuning: Tuning) -> None:
    assert {path.name.partition("-")[0] for path in (tuning.out / "shared").iterdir()} == {"data"}
    names = {path.name for path in tuning.directory("logit", 1).iterdir()}
    assert names == {"study.json", "trial.json", "runs"}
    assert {path.name for path in tuning.out.iterdir()} == {
        "shared",
        "trials",
        "tuning.json",
        "tuned.yaml",
    }


def test_the_tuned_recipe_has_each_arm_s_best_and_is_otherwise_the_same(tuning: Tuning) -> None:
    tuned = recipes.load(tuning.out / "tuned.yaml")
    for arm in ARMS:
        best = min(tuning.trials(arm), key=lambda trial: trial["value"])
        assert tuned.arms[arm] == ArmConfig(optimizer={"learning_rate": best["settings"][RATE]})
    assert tuned.tuning == str(tuning.out / "tuning.json")
    assert replace(tuned, arms=tuning.config.arms, tuning="") == tuning.config
    told_again = tuning_of(tuned)
    assert told_again is not None
    best = to_plain(told_again.arms["logit"].best)
    assert best == tuning.found["arms"]["logit"]["best"]


def test_the_table_and_the_recipe_are_printed(tuning: Tuning) -> None:
    assert all(arm in tuning.printed for arm in ARMS)
    assert "2 trials an arm, 3.00e7 FLOPs a run" in tuning.printed
    assert f"recipe: {tuning.out / 'tuned.yaml'}" in tuning.printed


def test_table_has_the_texts_own_losses_beside_a_loss(tuning: Tuning) -> None:
    losses = tuning.found["reference_losses"]
    assert losses["unigram"] > 0
    assert f"unigram {losses['unigram']:.3f}" in " ".join(tuning.printed.split())


def test_the_same_command_again_trains_nothing(
    tuning: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "train", no_training)
    before = {name: (tuning.out / name).read_bytes() for name in ("tuning.json", "tuned.yaml")}
    found, printed = told(tuning.config, tuning.out)
    assert (found, printed) == (tuning.found, tuning.printed)
    assert {name: (tuning.out / name).read_bytes() for name in before} == before


def test_a_tuning_that_was_killed_goes_on_as_if_it_had_not_been(tuning: Tuning, copy: Path) -> None:
    """Before the second trial's last run had ended, and before the trial after it had begun."""
    (copy / "trials" / "scratch" / "001" / "runs" / "scratch-seed7" / "result.json").unlink()
    shutil.rmtree(copy / "trials" / "logit" / "001")
    (copy / "tuning.json").unlink()
    stamp = (
        (copy / "trials" / "logit" / "000" / "runs" / "logit-seed7" / "result.json")
        .stat()
        .st_mtime_ns
    )
    found, _ = told(tuning.config, copy)
    assert timeless(found) == timeless(tuning.found)
    assert (
        copy / "trials" / "logit" / "000" / "runs" / "logit-seed7" / "result.json"
    ).stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sampler_seed": 1},
            r"trials/scratch/000/trial.json: this trial's settings are .*, expected .*another "
            r"--out",
        ),
        (
            {"space": {RATE: RangeConfig(low=1.0, high=2.0)}},
            r"000/trial.json: this trial's settings are",
        ),
        (
            {"share": 0.4},
            r"000/study.json: this study's budget.flops is 30000000.0, expected 24000000.0",
        ),
    ],
)
def test_a_directory_belongs_to_one_tuning(
    tuning: Tuning, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        tune(with_tune(tuning.config, **changes), tuning.out)


def test_a_directory_of_something_else_is_refused(config: Config, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files but no tuning"):
        tune(config, tmp_path)


def test_a_trial_that_diverges_is_counted_and_not_repeated(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six draws from a good rate and an impossible one, under two seeds."""
    rates = RangeConfig(choices=(1e-2, 1e30))
    alone = replace(config, arms={"scratch": ArmConfig()})
    diverging = with_tune(alone, trials=6, seeds=(7, 8), space={RATE: rates})
    found, printed = told(diverging, tmp_path / "out")
    own = found["arms"]["scratch"]
    lost = [trial for trial in own["trials"] if trial["settings"][RATE] == 1e30]
    kept = [trial for trial in own["trials"] if trial["settings"][RATE] == 1e-2]
    assert 0 < len(lost) < 6 and own["diverged"] == len(lost)
    assert all(trial["value"] is None for trial in lost)
    assert len({trial["value"] for trial in kept}) == 1
    assert all(0 < trial["charged"] < kept[0]["charged"] for trial in lost)
    assert own["best"]["settings"] == {RATE: 1e-2}
    assert f"6 ({len(lost)} diverged)" in printed
    assert f"scratch: {len(lost)} of 6 trials diverged." in " ".join(printed.split())
    monkeypatch.setattr(runner, "train", no_training)
    assert told(diverging, tmp_path / "out")[0] == found


def test_bad_input_other_than_divergence_ends_the_command(config: Config, tmp_path: Path) -> None:
    text = replace(config.data, files="no/such/*.txt")
    with pytest.raises(InputError, match=r"no/such"):
        tune(replace(config, data=text), tmp_path / "out")
    assert not (tmp_path / "out" / "tuning.json").exists()
    assert not list((tmp_path / "out" / "trials").rglob("*.json"))


def test_no_held_out_sequences_left_is_refused(config: Config, tmp_path: Path) -> None:
    alone = replace(
        config,
        arms={"scratch": ArmConfig()},
        evaluation=replace(config.evaluation, mlm_sequences=10**6),
    )
    with pytest.raises(
        InputError, match=r"evaluation takes all \d+ held-out sequences, expected some left"
    ):
        tune(alone, tmp_path / "out")


def test_a_probe_s_value_is_its_best_dev_score_and_nothing_is_fine_tuned(
    config: Config, tmp_path: Path
) -> None:
    """Held-out sequences are not needed, so the evaluation may have all."""
    alone = replace(
        config,
        arms={"scratch": ArmConfig()},
        evaluation=replace(config.evaluation, mlm_sequences=10**6),
    )
    probed = with_tune(alone, trials=1, share=0.1, endpoint="probe.parity")
    found, _ = told(probed, tmp_path / "out")
    (trial,) = found["arms"]["scratch"]["trials"]
    run = tmp_path / "out" / "trials" / "scratch" / "000" / "runs" / "scratch-seed7" / "result.json"
    row = json.loads(run.read_text())
    assert list(row["metrics"]) == ["probe.parity"]
    layers = row["details"]["probe.parity"]["layers"]
    assert trial["value"] == max(layer["dev"] for layer in layers)
    assert found["better"] == "higher"


def test_stored_outputs_are_made_once_for_all_trials(config: Config, tmp_path: Path) -> None:
    stored = replace(
        config,
        data=replace(config.data, mask_copies=1),
        arms={"read": ArmConfig("logit", teacher="cached")},
        cache=replace(config.cache, k=8, shared_by=1000),
    )
    found, _ = told(with_tune(stored, share=0.2), tmp_path / "out")
    (cache,) = (tmp_path / "out" / "shared").glob("cache-*")
    flops = json.loads((cache / "manifest.json").read_text())["totals"]["flops"]
    rows = [
        json.loads(path.read_text()) for path in (tmp_path / "out" / "trials").rglob("result.json")
    ]
    assert [row["spent"]["teacher_cache"] for row in rows] == [-(-flops // 1000)] * 2
    assert [trial["charged"] for trial in found["arms"]["read"]["trials"]] == [
        row["spent"]["charged"] for row in rows
    ]


REFUSED = [
    ({"trials": 0}, r"tune.trials is 0, expected at least 1"),
    ({"seeds": ()}, r"tune.seeds is \[\], expected one or more"),
    ({"seeds": (7, 7)}, r"tune.seeds is \[7, 7\], expected one or more, each once"),
    ({"seeds": (7, 1)}, r"tune.seeds has \[1\], which are among seeds"),
    ({"space": {}}, r"tune.space is empty"),
    (
        {"endpoint": "probe.paritty"},
        r"tune.endpoint is 'probe.paritty'.*\(did you mean 'probe.parity'\?\)",
    ),
    (
        {"endpoint": "finetune.parity"},
        r"tune.endpoint is 'finetune.parity', expected mlm_loss, mlm_probe or",
    ),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_tuned(
    config: Config, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        tune(with_tune(config, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_arm_without_an_mlm_head_needs_a_probe(config: Config, tmp_path: Path) -> None:
    arms = {name: ArmConfig() for name in ("scratch", "tinybert", "minilm")}
    with pytest.raises(
        InputError,
        match=r"'mlm_loss', which says nothing of tinybert, minilm: .*expected mlm_probe",
    ):
        tune(replace(config, arms=arms), tmp_path / "out")


@pytest.mark.parametrize(("kind", "amount"), [("flops", 4e12), ("tokens", 8e6), ("hours", 2.0)])
def test_a_trial_gets_its_share_of_any_budget(config: Config, kind: str, amount: float) -> None:
    whole = replace(
        config,
        budget=BudgetConfig(**{kind: amount}),
        tuning="before.json",
        sweep={"train.batch_size": [8]},
    )
    made = recipe_of(with_tune(whole, share=0.25))
    assert made.budget == BudgetConfig(**{kind: amount / 4})
    assert (made.seeds, made.tuning, made.sweep) == ((7,), "", {})
    assert not made.evaluation.tasks
    assert list(recipe_of(with_tune(whole, endpoint="probe.parity")).evaluation.tasks) == ["parity"]


def test_a_trial_is_charged_for_stored_outputs_what_a_run_of_the_recipe_is(config: Config) -> None:
    """Two arms under three seeds share them, however few runs a trial has."""
    arms = {"scratch": ArmConfig(), "one": ArmConfig("logit", teacher="cached")}
    small = replace(config.cache, k=8)
    stored = replace(
        config, cache=small, seeds=(0, 1, 2), data=replace(config.data, mask_copies=2), arms=arms
    )
    assert recipe_of(stored).cache.shared_by == 3
    arms = {**arms, "two": ArmConfig("logit", teacher="cached")}
    assert recipe_of(replace(stored, arms=arms)).cache.shared_by == 6
    assert (
        recipe_of(
            replace(stored, arms=arms, cache=replace(stored.cache, shared_by=40))
        ).cache.shared_by
        == 40
    )
    assert recipe_of(config).cache.shared_by == 0
