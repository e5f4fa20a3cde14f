"""Differences of differences between two finished studies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.results.store import RESULTS, write_results
from kdjax.results.study import Results
from kdjax.study.contrast import contrast_command
from kdjax.study.judgement.gaps import contrast_studies, differing_settings
from tests.report import results as made_up

SEEDS = 5


def shifted(results: Results, arm: str, endpoint: str, by: float) -> Results:
    """Return a study in which one arm's values are so much higher, and vary a little."""
    runs = []
    for run in results.runs:
        metrics = dict(run.metrics)
        if run.arm == arm:
            metrics[endpoint] += by + 0.001 * run.seed
        runs.append(replace(run, metrics=metrics))
    return replace(results, runs=tuple(runs))


@pytest.fixture(scope="module")
def studies() -> tuple[Results, Results]:
    """Return two studies, in the first of which minilm gains more on the primary endpoint."""
    second = replace(made_up.study(seeds=SEEDS), primary="probe.topic")
    first = shifted(second, "minilm", "probe.topic", 0.1)
    data = {**first.config["data"], "regime": "limited"}
    return replace(first, config={**first.config, "data": data}), second


def test_gap_that_grew_is_supported_with_the_interval_of_the_differences(
    studies: tuple[Results, Results],
) -> None:
    changes = contrast_studies(*studies, ("limited", "unlimited"))
    by_arm = {change.arm: change for change in changes if change.endpoint == "probe.topic"}
    grown = by_arm["minilm"]
    # All else falls out of the difference: 0.1 and a thousandth for each seed.
    differences = 0.1 + 0.001 * np.arange(SEEDS)
    expected = stats.ttest_1samp(differences, 0.0)
    interval = expected.confidence_interval(0.95)
    assert grown.difference == pytest.approx(0.102)
    assert (grown.low, grown.high) == pytest.approx((interval.low, interval.high))
    assert (grown.verdict, grown.family) == ("SUPPORTED", "confirmatory")
    assert grown.p_adjusted is not None
    assert grown.p_adjusted < 0.05
    # Arms that are as they were have no change, within 1 / rows.
    assert by_arm["logit"].difference == pytest.approx(0.0)
    assert by_arm["logit"].verdict == "TIES"


def test_gap_read_from_the_other_study_is_refuted(studies: tuple[Results, Results]) -> None:
    first, second = studies
    changes = contrast_studies(second, first, ("unlimited", "limited"))
    (shrunk,) = [c for c in changes if (c.arm, c.endpoint) == ("minilm", "probe.topic")]
    assert shrunk.verdict == "REFUTED"


def test_settings_that_differ_are_named(studies: tuple[Results, Results]) -> None:
    assert differing_settings(*studies) == ["data.regime"]
    assert differing_settings(studies[0], studies[0]) == []


def test_studies_without_a_shared_baseline_arm_are_refused(
    studies: tuple[Results, Results],
) -> None:
    first, second = studies
    without = replace(second, arms={name: second.arms[name] for name in ("logit", "minilm")})
    with pytest.raises(InputError, match=r"^b: arms are logit, minilm, expected scratch among"):
        contrast_studies(first, without, ("a", "b"))
    with pytest.raises(InputError, match="no endpoint has scratch and another arm in both"):
        contrast_studies(first, replace(second, endpoints=()), ("a", "b"))
    # Which endpoints and arms each has, so that the recipe to change is known.
    (loss, *_) = second.endpoints
    other = replace(second, endpoints=(replace(loss, arms=("minilm", "logit")),))
    with pytest.raises(InputError, match=rf"b has {loss.name} \(minilm, logit\)$"):
        contrast_studies(first, other, ("a", "b"))


def test_command_prints_sentences_or_json(
    studies: tuple[Results, Results], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directories = [tmp_path / name for name in ("limited", "unlimited")]
    for directory, study in zip(directories, studies, strict=True):
        directory.mkdir()
        write_results(directory / RESULTS, study)
    with Reporter() as reporter:
        contrast_command(*directories, reporter=reporter)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        *[f"reading {directory / RESULTS}" for directory in directories],
        "testing how the gaps differ",
    ]
    heading, *sentences = printed.out.splitlines()
    assert heading.endswith("Settings that differ: data.regime.")
    expected = (
        "limited against unlimited: minilm gains more over scratch on topic, linear probe, best "
        "layer: SUPPORTED (confirmatory), +0.102 accuracy"
    )
    assert any(sentence.startswith(expected) for sentence in sentences)
    changes = contrast_command(*directories, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert [row["arm"] for row in printed] == [change.arm for change in changes]


def test_directory_without_results_is_refused_by_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no results\.json, expected a finished study"):
        contrast_command(tmp_path, tmp_path)
