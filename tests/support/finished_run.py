"""The directory of a finished run, made by hand: nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdjax import recipes
from kdjax.budget.accounting import ACCOUNTS, Budget
from kdjax.budget.hardware import Peak
from kdjax.config import Config, plain, to_dict
from kdjax.results.runs import HardwareUse, RunResult
from kdjax.storage.files import write_json
from kdjax.storage.typed_json import to_plain
from kdjax.study.manifest import ArmCost
from kdjax.study.runs.recorded_run import PARAMS
from kdjax.study.runs.run_manifest import RunManifest
from kdjax.training.checksum import sha256
from kdjax.training.params_file import save_params
from tests.support import small_study
from tests.support.corpora import make_tokenizer


def recipe_in(directory: Path, *, seed: int = 0, **changes: Any) -> Config:
    """Write the recipe of a run whose text nobody reads; `changes` replaces whole sections."""
    settings = {
        "data": {
            "files": str(directory / "text.jsonl"),
            "tokenizer": str(make_tokenizer(directory / "tokenizer.json")),
            "seq_len": 16,
            "max_predictions": 3,
        },
        "student": small_study.STUDENT,
        "arms": {"scratch": {}},
        # Not this machine's eight devices: one is taken then, which compiles faster.
        "train": {"mesh": {"data": 1}},
        "budget": {"flops": 1e8},
        "seeds": [seed],
        **changes,
    }
    path = directory / "recipe.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return recipes.load(path)


def write_run(
    directory: Path,
    config: Config,
    params: Any,
    details: dict[str, Any],
    *,
    arm: str = "scratch",
    teacher: dict[str, Any] | None = None,
) -> Path:
    """Write the files of a finished run."""
    directory.mkdir(parents=True)
    (seed,) = config.seeds
    budget = Budget.from_config(config.budget)
    versions = dict.fromkeys(("kdjax", "jax", "python", "device"), "made up")
    settings = plain(to_dict(config))
    manifest = RunManifest(
        arm, seed, {}, ArmCost(()), budget, "", {}, teacher, settings, **versions
    )
    result = RunResult(
        arm=arm,
        seed=seed,
        budget=budget,
        used=0,
        spent=dict.fromkeys((*ACCOUNTS, "total", "charged"), 0),
        cache_bytes=0,
        steps=0,
        phases=(),
        padded_tokens=0,
        tokens_seen=0,
        tokens_unique=0,
        tokens_masked=0,
        epochs=0,
        wall_clock={},
        hardware=HardwareUse(0, None, 1, Peak(1.0, "float32", ""), None, None, None, 0, ""),
        metrics={name: detail.selection for name, detail in details.items()},
        details=details,
        curve=(),
        params_sha256=sha256(params),
        ledger_sha256="",
    )
    write_json(directory / "manifest.json", to_plain(manifest))
    write_json(directory / "result.json", to_plain(result))
    save_params(directory / PARAMS, params)
    return directory
