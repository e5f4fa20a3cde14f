"""A whole study with minimal pairs: endpoints, details, price, report and audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdjax import recipes
from kdjax.audit.audit import audit
from kdjax.config import Config
from kdjax.dry_run.recipe_prices import prices
from kdjax.errors import InputError
from kdjax.report.study_page import html
from kdjax.results.store import read_results
from kdjax.storage.typed_json import to_plain
from kdjax.study.compare import compare
from kdjax.tuning.trial import recipe_of
from tests.support import small_study
from tests.support.corpora import WORDS, make_tokenizer
from tests.support.pairs import ewok_row, write_set

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("one_device")]

Study = tuple[Path, dict[str, Any]]
"""A study's directory and its results."""


def settings(here: Path, **changes: Any) -> dict[str, Any]:
    pairs = here / "pairs"
    for name in ("blimp_filtered", "supplement_filtered"):
        rows = []
        for n in range(6):
            good = " ".join(WORDS[n : n + 4])
            bad = " ".join(WORDS[40 - n : 44 - n])
            rows.append({"sentence_good": good, "sentence_bad": bad})
        write_set(pairs, name, {"one": rows[:4], "two": rows[4:]})
    ewok = [ewok_row("w1 w2", ("w3 w4", "w30 w4"), "domain")]
    write_set(pairs, "ewok_filtered", {"domain": ewok})
    values = small_study.settings(
        here, arms={"scratch": {}, "logit": {}, "minilm": {}}, budget={"flops": 3e7}, seeds=[0, 1]
    )
    values["data"]["tokenizer"] = str(make_tokenizer(here / "tokenizer.json"))
    values["evaluation"] = {
        "mlm_sequences": 16,
        "minimal_pairs": {
            "directory": str(pairs),
            "scoring": ["pll", "within_word_l2r"],
            "batch_tokens": 64,
        },
        "primary": "minimal_pairs.blimp",
        **changes,
    }
    return values


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return recipes.from_dict(settings(tmp_path_factory.mktemp("recipe")))


@pytest.fixture(scope="module")
def study(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Study:
    out = tmp_path_factory.mktemp("study") / "out"
    return out, to_plain(compare(config, out))


def test_arms_that_train_a_head_and_the_teacher_are_measured(study: Study) -> None:
    _, results = study
    names = [f"minimal_pairs.{name}" for name in ("blimp", "supplement", "ewok")]
    endpoints = {endpoint["name"]: endpoint for endpoint in results["endpoints"]}
    assert list(endpoints) == ["mlm_loss", *names]
    for name in names:
        assert endpoints[name]["arms"] == ["scratch", "logit"]
        assert (endpoints[name]["unit"], endpoints[name]["better"]) == ("accuracy", "higher")
        assert endpoints[name]["baseline"] == 0.5
    assert endpoints["minimal_pairs.blimp"]["rows"] == 6
    measured = [row for row in results["runs"] if row["arm"] != "minilm"]
    measured += [row for row in results["references"] if row["seed"] is None]
    assert len(measured) == 5
    for row in measured:
        details = row["details"]["minimal_pairs.blimp"]
        scoring = details["scoring"]
        assert row["metrics"]["minimal_pairs.blimp"] == scoring["pll"]["accuracy"]
        assert list(scoring) == ["pll", "within_word_l2r"]
        assert scoring["pll"]["phenomena"]["one"]["pairs"] == 4
        # Words of this tokenizer are single tokens, so both ways mask the same.
        assert scoring["within_word_l2r"] == scoring["pll"]
        assert details["flops"] > 0
    others = [row for row in results["runs"] if row["arm"] == "minilm"]
    others += [row for row in results["references"] if row["seed"] is not None]
    assert not any(set(names) & set(row["metrics"]) for row in others)


def test_price_says_the_flops_that_runs_then_take(study: Study, config: Config) -> None:
    _, results = study
    priced = prices(config)
    run = next(row for row in results["runs"] if row["arm"] == "scratch")
    taken = sum(details["flops"] for name, details in run["details"].items() if "minimal" in name)
    assert priced["scratch"][0]["minimal_pairs"] == {"flops": taken}
    assert priced["minilm"][0]["minimal_pairs"] == {"flops": 0}
    # They are in no budget.
    assert run["spent"]["total"] == run["steps"] * priced["scratch"][0]["total"]


def test_report_shows_sets_ways_and_phenomena(study: Study) -> None:
    out, _ = study
    page = html(read_results(out / "results.json"))
    assert "blimp, minimal pairs" in page
    assert "within_word_l2r" in page
    assert '<th scope="row">domain</th>' in page


def test_primary_endpoint_may_be_a_set(study: Study) -> None:
    _, results = study
    assert results["primary"] == "minimal_pairs.blimp"
    (tested,) = [row for row in results["verdicts"] if row["family"] == "confirmatory"]
    assert tested["endpoint"] == "minimal_pairs.blimp"
    assert {tested["a"], tested["b"]} == {"scratch", "logit"}


def test_audit_finds_nothing(study: Study) -> None:
    out, _ = study
    assert audit(out) == []


def test_primary_set_that_is_not_read_is_refused(tmp_path: Path) -> None:
    values = settings(tmp_path, primary="minimal_pairs.ewok")
    values["evaluation"]["minimal_pairs"]["sets"] = ["blimp"]
    with pytest.raises(InputError, match=r"expected one of mlm_loss, minimal_pairs\.blimp"):
        compare(recipes.from_dict(values), tmp_path / "out")


def test_bad_pairs_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    values = settings(tmp_path)
    (tmp_path / "pairs" / "ewok_filtered" / "domain.jsonl").write_text('{"Context1": "w1"}\n')
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"domain\.jsonl, line 1: has no 'Target1'"):
        compare(recipes.from_dict(values), out)
    assert not out.exists()


def test_trials_of_tuning_leave_pairs_out(config: Config) -> None:
    assert recipe_of(config).evaluation.minimal_pairs.directory == ""
