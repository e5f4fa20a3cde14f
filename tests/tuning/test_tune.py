"""A whole tuning, from text to the tuned recipe."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from kdjax import recipes
from kdjax.config import ArmConfig, BudgetConfig, Config, RangeConfig
from kdjax.data.corpus import Corpus
from kdjax.dry_run.recipe_prices import prices
from kdjax.errors import InputError
from kdjax.evaluation.mlm import held_out_loss
from kdjax.models import zoo
from kdjax.storage.typed_json import to_plain
from kdjax.study.batches import held_out_batches, tuning_batches
from kdjax.study.runs import runner
from kdjax.study.tuned import tuning_of
from kdjax.training import program
from kdjax.tuning.trial import recipe_of
from kdjax.tuning.tune import tune
from tests.support import small_study

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("one_device")]

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
    """A finished tuning: its recipe, directory, tuning.json, output, and cache of programs."""

    config: Config
    out: Path
    results: dict[str, Any]
    printed: str
    programs: Any

    def trials(self, arm: str) -> list[dict[str, Any]]:
        trials: list[dict[str, Any]] = self.results["arms"][arm]["trials"]
        return trials

    def directory(self, arm: str, number: int) -> Path:
        return self.out / "trials" / arm / f"{number:03}"

    def run(self, arm: str, number: int, seed: int = 7) -> Path:
        return self.directory(arm, number) / "runs" / f"{arm}-seed{seed}"


def run_tune(config: Config, out: Path) -> tuple[dict[str, Any], str]:
    """Run `kdjax tune`; return the content of tuning.json, and what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        results = tune(config, out)
    return to_plain(results), printed.getvalue()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Return a recipe of two arms, and a teacher that has its MLM head."""
    directory = tmp_path_factory.mktemp("recipe")
    settings = small_study.settings(
        directory, arms={arm: {} for arm in ARMS}, budget={"flops": 6e7}, tune=TUNE
    )
    settings["teacher"] = small_study.with_head(directory / "teacher")
    return recipes.from_dict(settings)


@pytest.fixture(scope="module")
def tuning(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    out = tmp_path_factory.mktemp("tuning") / "out"
    program._program.cache_clear()
    results, printed = run_tune(config, out)
    return Tuning(config, out, results, printed, program._program.cache_info())


@pytest.fixture
def copy(tuning: Tuning, tmp_path: Path) -> Path:
    shutil.copytree(tuning.out, tmp_path / "out")
    return tmp_path / "out"


def no_training(*args: object, **kwargs: object) -> None:
    pytest.fail("a finished run was trained again")


def with_tune(config: Config, **changes: Any) -> Config:
    return replace(config, tune=replace(config.tune, **changes))


def timeless(results: Mapping[str, Any]) -> Any:
    """Return the content of a tuning.json without seconds."""
    # Seconds are all that differs between two tunings of one recipe.
    arms = json.loads(json.dumps(results["arms"]))
    for arm in arms.values():
        for entry in (arm, *arm["trials"]):
            del entry["seconds"]
    return {**results, "arms": arms}


def rows(batches: list[dict[str, np.ndarray]]) -> set[bytes]:
    """Return the sequences of batches, without rows that only fill a batch."""
    sequences: set[bytes] = set()
    for batch in batches:
        present = batch["valid"].any(axis=1)
        sequences.update(row.tobytes() for row in batch["tokens"][present])
    return sequences


def test_every_trial_spends_its_share_and_the_best_has_the_lowest_loss(tuning: Tuning) -> None:
    assert list(tuning.results["arms"]) == list(ARMS)
    costs = prices(tuning.config)
    for arm in ARMS:
        assert [trial["number"] for trial in tuning.trials(arm)] == [0, 1]
        (phase,) = costs[arm]
        for trial in tuning.trials(arm):
            # Half of the budget of 6e7, less what does not pay a step.
            assert 3e7 - phase["total"] < trial["charged"] <= 3e7
            assert trial["total"] == trial["charged"] == trial["steps"] * phase["total"]
            assert 1e-3 <= trial["settings"][RATE] <= 3e-2
        # The arm's sums are those of its trials.
        summary = tuning.results["arms"][arm]
        assert summary["charged"] == sum(trial["charged"] for trial in tuning.trials(arm))
        assert summary["best"]["value"] == min(trial["value"] for trial in tuning.trials(arm))
    # A random sampler learns nothing, so both arms get the same settings.
    assert [t["settings"] for t in tuning.trials("scratch")] == [
        t["settings"] for t in tuning.trials("logit")
    ]
    assert tuning.results["trials"] == 2
    assert tuning.results["seeds"] == [7]


def test_trial_s_settings_reach_its_run(tuning: Tuning) -> None:
    for arm in ARMS:
        for trial in tuning.trials(arm):
            manifest = json.loads((tuning.run(arm, trial["number"]) / "manifest.json").read_text())
            assert manifest["arm_settings"]["optimizer"]["learning_rate"] == trial["settings"][RATE]
            assert manifest["seed"] == 7
            assert manifest["budget"]["amount"] == 3 * 10**7
    # Two settings of two arms: four values.
    trials = [*tuning.trials("scratch"), *tuning.trials("logit")]
    assert len({trial["value"] for trial in trials}) == 4


def test_value_is_the_loss_on_held_out_sequences_that_no_evaluation_uses(tuning: Tuning) -> None:
    # The two sets of held-out sequences have nothing in common.
    (data,) = (tuning.out / "shared").glob("data-*")
    corpus = Corpus.open(data)
    of_tuning = tuning_batches(tuning.config, corpus)
    of_evaluation = held_out_batches(tuning.config, corpus)
    tuning_rows = rows(of_tuning)
    evaluation_rows = rows(of_evaluation)
    assert len(tuning_rows) > 1
    assert len(evaluation_rows) == 16
    assert not tuning_rows & evaluation_rows

    # The stored parameters have a trial's value on the tuning's sequences alone.
    student = zoo.resolve(tuning.config.student)
    for arm in ARMS:
        for trial in tuning.trials(arm):
            flat = load_file(tuning.run(arm, trial["number"]) / "params.safetensors")
            params = unflatten_dict({tuple(name.split(".")): array for name, array in flat.items()})
            assert trial["value"] == pytest.approx(
                held_out_loss(student, params, of_tuning).loss, rel=1e-5
            )
            assert trial["value"] != pytest.approx(
                held_out_loss(student, params, of_evaluation).loss, rel=1e-5
            )


def test_trials_with_other_learning_rates_share_a_compiled_program(tuning: Tuning) -> None:
    # Each arm compiles once, and its second trial uses the program.
    assert (tuning.programs.misses, tuning.programs.hits) == (len(ARMS), len(ARMS))


def test_shared_artifacts_are_made_once(tuning: Tuning) -> None:
    assert {path.name.partition("-")[0] for path in (tuning.out / "shared").iterdir()} == {"data"}
    # A trial holds no artifact of its own.
    names = {path.name for path in tuning.directory("logit", 1).iterdir()}
    assert names == {"study.json", "trial.json", "runs"}
    assert {path.name for path in tuning.out.iterdir()} == {
        "shared",
        "trials",
        "tuning.json",
        "tuned.yaml",
    }


def test_tuned_recipe_has_each_arm_s_best_and_is_otherwise_the_same(tuning: Tuning) -> None:
    tuned = recipes.load(tuning.out / "tuned.yaml")
    for arm in ARMS:
        best = min(tuning.trials(arm), key=lambda trial: trial["value"])
        assert tuned.arms[arm] == ArmConfig(optimizer={"learning_rate": best["settings"][RATE]})
    assert tuned.tuning == str(tuning.out / "tuning.json")
    assert replace(tuned, arms=tuning.config.arms, tuning="") == tuning.config
    read_tuning = tuning_of(tuned)
    assert read_tuning is not None
    best = to_plain(read_tuning.arms["logit"].best)
    assert best == tuning.results["arms"]["logit"]["best"]


def test_command_prints_the_table_and_the_recipe_s_path(tuning: Tuning) -> None:
    # Which arms were tuned, for how much, and where the recipe is.
    assert all(arm in tuning.printed for arm in ARMS)
    assert "2 trials an arm, 3.00e7 FLOPs a run" in tuning.printed
    assert f"recipe: {tuning.out / 'tuned.yaml'}" in tuning.printed


def test_table_has_the_texts_own_losses_beside_a_loss(tuning: Tuning) -> None:
    losses = tuning.results["reference_losses"]
    assert losses["unigram"] > 0
    row = next(line for line in tuning.printed.splitlines() if line.startswith(" unigram"))
    assert f"{losses['unigram']:.3f}" in row.split()


def test_table_fits_80_columns_and_breaks_a_setting_s_name_at_its_dot(tuning: Tuning) -> None:
    lines = [line.split() for line in tuning.printed.splitlines()]
    assert ["optimizer."] in lines
    assert next(line for line in lines if "arm" in line)[:3] == ["arm", "trials", "learning_rate"]
    # Every arm has one row: nothing was left for a second table.
    assert [line[0] for line in lines if line and line[0] in ARMS].count(ARMS[0]) == 1


def test_same_command_again_trains_nothing(tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "train", no_training)
    before = {name: (tuning.out / name).read_bytes() for name in ("tuning.json", "tuned.yaml")}
    assert run_tune(tuning.config, tuning.out) == (tuning.results, tuning.printed)
    assert {name: (tuning.out / name).read_bytes() for name in before} == before


def test_tuning_that_was_killed_goes_on_as_if_it_had_not_been(tuning: Tuning, copy: Path) -> None:
    # Before the second trial's last run had ended, and before the trial after it had begun.
    (copy / "trials" / "scratch" / "001" / "runs" / "scratch-seed7" / "result.json").unlink()
    shutil.rmtree(copy / "trials" / "logit" / "001")
    (copy / "tuning.json").unlink()
    finished = copy / "trials" / "logit" / "000" / "runs" / "logit-seed7" / "result.json"
    stamp = finished.stat().st_mtime_ns
    results, _ = run_tune(tuning.config, copy)
    assert timeless(results) == timeless(tuning.results)
    assert finished.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("changes", "message"),
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
def test_directory_of_another_tuning_is_refused(
    tuning: Tuning, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tune(with_tune(tuning.config, **changes), tuning.out)


def test_directory_of_other_files_is_refused(config: Config, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files but no tuning"):
        tune(config, tmp_path)


def test_trial_that_diverges_is_counted_and_not_repeated(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Six draws from a good rate and an impossible one, under two seeds.
    rates = RangeConfig(choices=(1e-2, 1e30))
    only_scratch = replace(config, arms={"scratch": ArmConfig()})
    diverging = with_tune(only_scratch, trials=6, seeds=(7, 8), space={RATE: rates})
    results, printed = run_tune(diverging, tmp_path / "out")
    # Trials at the impossible rate diverge under both seeds, and the others end alike.
    scratch = results["arms"]["scratch"]
    diverged = [trial for trial in scratch["trials"] if trial["settings"][RATE] == 1e30]
    ended = [trial for trial in scratch["trials"] if trial["settings"][RATE] == 1e-2]
    assert 0 < len(diverged) < 6
    assert scratch["diverged"] == len(diverged)
    assert all(trial["value"] is None for trial in diverged)
    assert len({trial["value"] for trial in ended}) == 1
    # A trial that diverged is charged for what it did until then.
    assert all(0 < trial["charged"] < ended[0]["charged"] for trial in diverged)
    assert scratch["best"]["settings"] == {RATE: 1e-2}
    assert f"6 ({len(diverged)} diverged)" in printed
    assert f"scratch: {len(diverged)} of 6 trials diverged." in " ".join(printed.split())

    # The same command again reads that they diverged.
    monkeypatch.setattr(runner, "train", no_training)
    assert run_tune(diverging, tmp_path / "out")[0] == results


def test_bad_input_other_than_divergence_ends_the_command(config: Config, tmp_path: Path) -> None:
    text = replace(config.data, files="no/such/*.txt")
    with pytest.raises(InputError, match=r"no/such"):
        tune(replace(config, data=text), tmp_path / "out")
    # What is wrong with every trial is no divergence: nothing is written.
    assert not (tmp_path / "out" / "tuning.json").exists()
    assert not list((tmp_path / "out" / "trials").rglob("*.json"))


def test_tuning_without_held_out_sequences_for_it_is_refused(
    config: Config, tmp_path: Path
) -> None:
    greedy = replace(
        config,
        arms={"scratch": ArmConfig()},
        evaluation=replace(config.evaluation, mlm_sequences=10**6),
    )
    with pytest.raises(
        InputError, match=r"evaluation takes all \d+ held-out sequences, expected some left"
    ):
        tune(greedy, tmp_path / "out")


def test_value_of_a_probe_is_its_best_dev_score_and_nothing_is_fine_tuned(
    config: Config, tmp_path: Path
) -> None:
    # Held-out sequences are not needed, so the evaluation may have all.
    greedy = replace(
        config,
        arms={"scratch": ArmConfig()},
        evaluation=replace(config.evaluation, mlm_sequences=10**6),
    )
    probed = with_tune(greedy, trials=1, share=0.1, endpoint="probe.parity")
    results, _ = run_tune(probed, tmp_path / "out")
    (trial,) = results["arms"]["scratch"]["trials"]
    run = tmp_path / "out" / "trials" / "scratch" / "000" / "runs" / "scratch-seed7" / "result.json"
    row = json.loads(run.read_text())
    # One score, of the probe on dev rows: nothing else is evaluated.
    assert list(row["metrics"]) == ["probe.parity"]
    layers = row["details"]["probe.parity"]["layers"]
    assert trial["value"] == max(layer["dev"] for layer in layers)
    assert results["better"] == "higher"


def test_stored_outputs_are_made_once_for_all_trials(config: Config, tmp_path: Path) -> None:
    stored = replace(
        config,
        data=replace(config.data, mask_copies=1),
        arms={"read": ArmConfig("logit", teacher="cached")},
        cache=replace(config.cache, k=8, shared_by=1000),
    )
    results, _ = run_tune(with_tune(stored, share=0.2), tmp_path / "out")
    # The cache is built once, and its price is shared as the recipe says.
    (cache,) = (tmp_path / "out" / "shared").glob("cache-*")
    flops = json.loads((cache / "manifest.json").read_text())["totals"]["flops"]
    paths = (tmp_path / "out" / "trials").rglob("result.json")
    spent = [json.loads(path.read_text())["spent"] for path in paths]
    assert [accounts["teacher_cache"] for accounts in spent] == [-(-flops // 1000)] * 2
    charged = [trial["charged"] for trial in results["arms"]["read"]["trials"]]
    assert charged == [accounts["charged"] for accounts in spent]


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
        {"endpoint": "fixed.parity"},
        r"tune.endpoint is 'fixed.parity', expected mlm_loss, mlm_probe or",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_recipe_that_cannot_be_tuned_is_refused(
    config: Config, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tune(with_tune(config, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mlm_loss_of_an_arm_without_an_mlm_head_is_refused(config: Config, tmp_path: Path) -> None:
    arms = {name: ArmConfig() for name in ("scratch", "tinybert", "minilm")}
    with pytest.raises(
        InputError,
        match=r"'mlm_loss', which says nothing of tinybert, minilm: .*expected mlm_probe",
    ):
        tune(replace(config, arms=arms), tmp_path / "out")


@pytest.mark.parametrize(("kind", "amount"), [("flops", 4e12), ("tokens", 8e6), ("hours", 2.0)])
def test_trial_gets_its_share_of_any_budget(config: Config, kind: str, amount: float) -> None:
    whole = replace(
        config,
        budget=BudgetConfig(**{kind: amount}),
        tuning="before.json",
        sweep={"train.batch_size": [8]},
    )
    # A quarter of the budget, whatever it is counted in, and the tuning's own seeds.
    recipe = recipe_of(with_tune(whole, share=0.25))
    assert recipe.budget == BudgetConfig(**{kind: amount / 4})
    assert (recipe.seeds, recipe.tuning, recipe.sweep) == ((7,), "", {})
    # The tasks are only there where a trial is measured by one.
    assert not recipe.evaluation.tasks
    assert list(recipe_of(with_tune(whole, endpoint="probe.parity")).evaluation.tasks) == ["parity"]


def test_trial_is_charged_for_stored_outputs_as_a_run_of_the_recipe_is(config: Config) -> None:
    """Two arms under three seeds share them, however few runs a trial has."""
    arms = {"scratch": ArmConfig(), "one": ArmConfig("logit", teacher="cached")}
    small = replace(config.cache, k=8)
    stored = replace(
        config, cache=small, seeds=(0, 1, 2), data=replace(config.data, mask_copies=2), arms=arms
    )
    assert recipe_of(stored).cache.shared_by == 3
    arms = {**arms, "two": ArmConfig("logit", teacher="cached")}
    assert recipe_of(replace(stored, arms=arms)).cache.shared_by == 6
    stated = replace(stored, arms=arms, cache=replace(stored.cache, shared_by=40))
    assert recipe_of(stated).cache.shared_by == 40
    assert recipe_of(config).cache.shared_by == 0
