"""A whole study whose arms are measured by an MLM probe, charged to their budgets, on two texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdjax import recipes
from kdjax.arms.charges import probe_batch_shape
from kdjax.audit.audit import audit
from kdjax.config import Config
from kdjax.dry_run.recipe_prices import prices
from kdjax.errors import InputError
from kdjax.evaluation.mlm_probe import MlmProbe, cost_of
from kdjax.models import zoo
from kdjax.report.study_page import html
from kdjax.results.store import results_of
from kdjax.storage.typed_json import to_plain
from kdjax.study.compare import compare
from kdjax.tuning.trial import recipe_of
from kdjax.tuning.tune import tune
from tests.study.conftest import kdjax
from tests.support import small_study
from tests.support.corpora import WORDS

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("one_device")]

ARMS = ("scratch", "minilm")
PROBE = {"tokens": 2000, "batch_size": 8}
BUDGET = 3.0e7
Study = tuple[Path, dict[str, Any]]
"""A study's directory and its results."""


def settings(here: Path, **probe: Any) -> dict[str, Any]:
    values = small_study.settings(
        here, arms={arm: {} for arm in ARMS}, budget={"flops": BUDGET}, seeds=[0, 1]
    )
    values["teacher"]["head"]["budget"] = 0
    paragraphs = []
    for n in range(9):
        paragraphs.append(" ".join(WORDS[(7 * n + i * i) % len(WORDS)] for i in range(20)))
    (here / "other.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    values["evaluation"] = {
        "mlm_sequences": 16,
        "mlm_probe": {**PROBE, **probe},
        "texts": {"other-text": str(here / "other.txt")},
    }
    return values


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return recipes.from_dict(settings(tmp_path_factory.mktemp("recipe"), charged=True))


@pytest.fixture(scope="module")
def study(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Study:
    out = tmp_path_factory.mktemp("study") / "out"
    return out, to_plain(compare(config, out))


def test_each_run_and_reference_has_the_probe_on_both_texts(study: Study) -> None:
    _, results = study
    names = ["mlm_probe", "mlm_probe.other-text"]
    endpoints = {endpoint["name"]: endpoint for endpoint in results["endpoints"]}
    assert list(endpoints) == ["mlm_loss", "mlm_loss.other-text", *names]
    for name in names:
        assert endpoints[name]["arms"] == list(ARMS)
        assert (endpoints[name]["unit"], endpoints[name]["better"]) == ("nats", "lower")
    assert endpoints["mlm_loss.other-text"]["arms"] == ["scratch"]
    for row in [*results["runs"], *results["references"]]:
        for name in names:
            assert 0 < row["metrics"][name] < 10
            assert row["details"][name]["shuffled"] > 0
        # Whether more tokens would lower the loss.
        probe = row["details"]["mlm_probe"]
        assert probe["gain"] == pytest.approx(probe["half"] - row["metrics"]["mlm_probe"])
        assert probe["converged"] == (probe["gain"] <= probe["tolerance"])
    judged = {verdict["endpoint"] for verdict in results["verdicts"]}
    assert set(names) <= judged


def test_charged_probe_and_training_stay_within_the_budget(study: Study, config: Config) -> None:
    _, results = study
    costs = prices(config)
    for run in results["runs"]:
        student = zoo.resolve(config.student)
        probe = cost_of(config.evaluation.mlm_probe, student, probe_batch_shape(config)).total
        step = costs[run["arm"]][0]["total"]
        assert run["spent"]["mlm_probe"] == probe == run["details"]["mlm_probe"]["flops"]
        assert run["spent"]["charged"] == probe + run["steps"] * step
        assert BUDGET - step < run["spent"]["charged"] <= BUDGET
        assert costs[run["arm"]][0]["mlm_probe"] == {"flops": probe, "charged": True}
        assert costs[run["arm"]][0]["steps"] == run["steps"]


def test_learning_rate_warms_up_from_zero_after_a_charged_probe(
    study: Study, config: Config
) -> None:
    out, results = study
    run = results["runs"][0]
    first = json.loads(
        (out / "runs" / "scratch-seed0" / "metrics.jsonl").read_text().splitlines()[0]
    )
    optimizer = config.train.optimizer
    warmed = 1 / (run["steps"] * optimizer.warmup)
    assert first["learning_rate"] == pytest.approx(
        optimizer.learning_rate * min(1, warmed), rel=0.1
    )


def test_audit_finds_a_wrong_probe_charge(study: Study) -> None:
    out, _ = study
    assert audit(out) == []
    # One FLOP more is found.
    path = out / "study.json"
    before = path.read_text()
    stored = json.loads(before)
    stored["costs"]["minilm"]["upfront"]["mlm_probe"] += 1
    path.write_text(json.dumps(stored))
    assert any("costs.minilm.upfront.mlm_probe" in str(finding) for finding in audit(out))
    path.write_text(before)


def test_run_manifest_holds_digests_of_texts(study: Study) -> None:
    out, results = study
    manifest = json.loads((out / "runs" / "scratch-seed0" / "manifest.json").read_text())
    facts = results["corpus"]["texts"]["other-text"]
    assert manifest["texts"] == {"other-text": facts["digest"]}
    assert facts["documents"] == 9
    assert (
        json.loads((out / "texts" / "other-text" / "manifest.json").read_text())["sequences"][
            "train"
        ]
        == 0
    )


def test_report_shows_probes_and_the_shuffled_control(study: Study) -> None:
    out, results = study
    page = html(results_of(results, out / "results.json"))
    assert "<h2>MLM probe</h2>" in page
    assert "<h2>Whether order matters</h2>" in page
    assert "MLM probe, held-out loss, other-text" in page


def test_run_killed_while_fitting_the_probe_ends_with_the_same_result(
    study: Study, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = study
    one_run = replace(config, arms={"scratch": config.arms["scratch"]}, seeds=(0,))
    fit = MlmProbe.fit

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MlmProbe, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        compare(one_run, tmp_path / "out")
    assert not (tmp_path / "out" / "runs" / "scratch-seed0" / "result.json").exists()
    # The same command goes on and ends as the undisturbed study did.
    monkeypatch.setattr(MlmProbe, "fit", fit)
    compare(one_run, tmp_path / "out")
    rows = [
        json.loads((at / "runs" / "scratch-seed0" / "result.json").read_text())
        for at in (out, tmp_path / "out")
    ]
    for row in rows:
        # What the clock said, and its hash
        for name in (
            "wall_clock",
            "hardware",
            "ledger_sha256",
        ):
            del row[name]
    # With a teacher in the study, its losses are beside the student's.
    for row in rows:
        row["details"]["mlm_loss"] = row["details"]["mlm_loss"]["shuffled"]
        row["curve"] = [point["mlm_loss"] for point in row["curve"]]
    assert rows[0] == rows[1]


def test_curve_holds_the_probe_measured_along_the_way(tmp_path: Path) -> None:
    values = settings(tmp_path, along_the_way=True)
    values |= {"arms": {"minilm": {}}, "seeds": [0]}
    values["evaluation"]["texts"] = {}
    results = to_plain(compare(recipes.from_dict(values), tmp_path / "out"))
    (run,) = results["runs"]
    assert [set(point) >= {"share", "mlm_probe"} for point in run["curve"]] == [True] * len(
        run["curve"]
    )
    assert len(run["curve"]) >= 3
    assert run["curve"][-1]["mlm_probe"] == run["metrics"]["mlm_probe"]
    assert run["spent"]["mlm_probe"] == 0
    assert "probe is fitted anew at each point" in html(results_of(results, tmp_path))
    assert audit(tmp_path / "out") == []


def test_tuning_by_the_probe_uses_sequences_of_its_own(tmp_path: Path) -> None:
    values = settings(tmp_path)
    values |= {"arms": {"minilm": {}}, "seeds": [0]}
    space = {"optimizer.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}
    values["tune"] = {
        "trials": 1,
        "seeds": [7],
        "endpoint": "mlm_probe",
        "space": space,
        "sampler": "random",
    }
    tuning = tune(recipes.from_dict(values), tmp_path / "out")
    (trial,) = tuning.arms["minilm"].trials
    assert tuning.better == "lower"
    assert trial.value is not None
    assert 0 < trial.value < 10
    row = json.loads(
        (tmp_path / "out" / "trials/minilm/000/runs/minilm-seed7/result.json").read_text()
    )
    assert row["metrics"] == {"mlm_probe": trial.value}


def test_trials_by_another_endpoint_keep_only_a_charged_probe(config: Config) -> None:
    space = {"optimizer.learning_rate": {"low": 1e-3, "high": 1e-2}}
    tuned = replace(config, tune=replace(config.tune, trials=1, endpoint="mlm_loss", space=space))
    assert recipe_of(tuned).evaluation.mlm_probe.tokens == PROBE["tokens"]
    # A probe that costs a run nothing is left out.
    free = replace(tuned.evaluation, mlm_probe=replace(tuned.evaluation.mlm_probe, charged=False))
    assert recipe_of(replace(tuned, evaluation=free)).evaluation.mlm_probe.tokens == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlm_probe": {"tokens": 100}}, "evaluation.mlm_probe.tokens is 100"),
        ({"mlm_probe": {"tokens": 1e6, "batch_size": 100000}}, "evaluation.mlm_probe"),
        ({"texts": {"a/b": "x.txt"}}, "evaluation.texts has 'a/b'"),
        ({"texts": {"a": "nowhere/*.txt"}}, "evaluation.texts.a: nowhere/*.txt: no file matches"),
    ],
)
def test_impossible_probe_or_text_is_refused_and_nothing_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    values = settings(tmp_path) | {"arms": {"scratch": {}}}
    del values["teacher"]
    values["data"]["tokenizer"] = str(tmp_path / "tokenizer.json")
    values["evaluation"] |= change
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(values))
    ended = kdjax("compare", recipe, "--out", tmp_path / "out")
    assert ended.status == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_tuning_by_a_missing_probe_is_refused(tmp_path: Path) -> None:
    values = settings(tmp_path, tokens=0)
    values["tune"] = {
        "trials": 1,
        "endpoint": "mlm_probe",
        "space": {"optimizer.learning_rate": {"low": 1e-3, "high": 1e-2}},
    }
    with pytest.raises(InputError, match=r"expected evaluation\.mlm_probe\.tokens above 0"):
        tune(recipes.from_dict(values), tmp_path / "out")
