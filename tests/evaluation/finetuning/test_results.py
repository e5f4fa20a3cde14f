"""Results keep each row's outcome, and come back from JSON as they were."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from kdjax.evaluation.finetuning.results import (
    FinetunedTask,
    FinetuningTrial,
    Setting,
    encode_errors,
    encode_right,
    right_rows,
    squared_errors,
)
from kdjax.storage.typed_json import from_plain, to_plain


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 1000])
def test_right_rows_come_back_from_their_bits(rows: int) -> None:
    rng = np.random.default_rng(rows)
    predicted = rng.integers(0, 3, rows)
    truth = rng.integers(0, 3, rows)
    decoded = right_rows(encode_right(predicted, truth), rows)
    np.testing.assert_array_equal(decoded, predicted == truth)


def test_first_row_is_the_highest_bit() -> None:
    # 10000000 is 0x80, which base64 writes as gA==.
    assert encode_right(np.array([1, 0]), np.array([1, 1])) == "gA=="


def test_squared_errors_come_back_as_float32() -> None:
    decoded = squared_errors(encode_errors(np.array([1.5, 2.0, 4.0]), np.array([1.0, 2.0, 1.0])))
    assert decoded.tolist() == [0.25, 0.0, 9.0]


def test_results_come_back_from_json() -> None:
    setting = Setting(1e-4, 32, 3, 90)
    metrics = {"mine": {"accuracy": 0.5}}
    trial = FinetuningTrial(setting, 5, None, 0.75, metrics, False, None, {"mine": "gA=="})
    other = dataclasses.replace(trial, draw=2, diverged_step=4, failed=True, rows=None)
    result = FinetunedTask(
        task="mine",
        protocol="fixed",
        intermediate="mnli",
        chosen=setting,
        selection=0.75,
        metrics=metrics,
        scores={"mine": 0.5},
        baseline={"mine": 0.4},
        trials=(trial, other),
        failed=1,
        diverged=1,
    )
    text = json.dumps(to_plain(result), allow_nan=False)
    assert from_plain(FinetunedTask, json.loads(text), "results.json:") == result
    # What a trial does not keep is not in the file.
    assert "rows" not in json.loads(text)["trials"][1]
