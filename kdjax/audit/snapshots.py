"""The audit of a run's snapshots: each is of the first step at which the run had seen its words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdjax.audit.findings import AuditFindings
from kdjax.budget.accounting import Budget
from kdjax.data.manifest import Manifest
from kdjax.study.runs.snapshots import (
    FACTS,
    FOLDER,
    PARAMS,
    kept_snapshots,
    snapshot_name,
)
from kdjax.training.checksum import sha256
from kdjax.training.params_file import load_params


def audit_snapshots(
    run_dir: Path,
    account: Callable[[int], Mapping[str, Any]],
    budget: Budget,
    manifest: Manifest | None,
    findings: AuditFindings,
) -> None:
    """Audit the facts and the parameters of a run's snapshots.

    Args:
        run_dir: the run's directory.
        account: function from a number of steps to the account that the ledger shows after them.
        budget: budget of the run.
        manifest: manifest of its text; None: it is gone, and words are not counted.
        findings: collects the differences.
    """
    with findings.record_errors(run_dir / FOLDER):
        for name, snapshot in kept_snapshots(run_dir).items():
            path = run_dir / FOLDER / name / FACTS
            now = account(snapshot.steps)
            spent = now["spent"]
            total = {"total": sum(spent.values()), "charged": budget.charges(spent)}
            expected = {
                "name": snapshot_name(snapshot.words),
                "spent": {**spent, **total},
                "padded_tokens": now["positions"],
            }
            # Where the text is there, its tokens and words are counted again.
            if manifest is not None and "tokens" in now:
                before = account(snapshot.steps - 1)["tokens"]
                expected |= {
                    "tokens_seen": now["tokens"],
                    "tokens_unique": now["unique_tokens"],
                    "words_seen": manifest.words_in(now["tokens"]),
                }
                if not (manifest.words_in(before) or 0) < snapshot.words <= snapshot.words_seen:
                    findings.add(
                        f"{path}: words",
                        f"{snapshot.words} at step {snapshot.steps}",
                        "the first step at which the run had seen as many",
                    )
            recorded = {field: getattr(snapshot, field) for field in expected}
            findings.expect_equal(path, recorded, expected)
            weights = sha256(load_params(path.with_name(PARAMS)))
            findings.expect_equal(path, snapshot.params_sha256, weights, "params_sha256")
