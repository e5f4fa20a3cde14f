"""The audit of trunks that runs of a sweep share: what a run did not do, another one has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.arms.recipe_arms import arms_of
from kdjax.audit.findings import AuditFindings
from kdjax.budget import journal
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import Price
from kdjax.config import Config, OptimizerConfig
from kdjax.storage.typed_json import from_plain
from kdjax.study.runs.run_backup import run_name
from kdjax.sweep.cells import cells_of
from kdjax.training.learning_rate import has_left_peak

_ACCOUNT = (
    "spent",
    "phases",
    "positions",
    "tokens",
    "unique_tokens",
    "masked_tokens",
    "cache_bytes",
    "seconds",
)
"""Fields of a ledger that a run takes over from the one whose trunk it goes on from."""


def audit_trunks(directory: Path, config: Config, findings: AuditFindings) -> None:
    """Hold each run that went on from another's trunk against the other's journal.

    Args:
        directory: directory of the sweep.
        config: recipe of the sweep.
        findings: collects the differences.
    """
    checked = 0
    for cell in cells_of(config):
        for name, arm in arms_of(cell.config).items():
            optimizer = arm.phases[0].optimizer
            for seed in config.seeds:
                run = Path("runs") / run_name(name, seed)
                path = directory / "cells" / cell.name / run / journal.NAME
                with findings.record_errors(path):
                    checked += _audit_run(path, directory / "cells", run, optimizer, findings)
    findings.lines.append(
        f"{directory}: held against the trunks of smaller budgets: runs {checked}"
    )


def _audit_run(
    path: Path, cells: Path, run: Path, optimizer: OptimizerConfig, findings: AuditFindings
) -> int:
    """Audit a run; return how many branches it has.

    Args:
        path: path of its journal.
        cells: directory of the sweep's studies.
        run: path of a run of its arm and seed within a study.
        optimizer: settings of the arm's schedule.
        findings: collects the differences.
    """
    branches = [entry for entry in journal.read(path) if entry["event"] == "branch"]
    for branch in branches:
        source = cells / branch["shared"]["study"] / run / journal.NAME
        entries = journal.read(source)
        sha256 = branch["shared"]["trunk_sha256"]
        named = [entry for entry in entries if entry["sha256"] == sha256]
        place = f"{path}: entry {branch['entry']}"
        if not named:
            findings.add(place, f"a trunk {sha256[:16]}", f"an entry of {source}")
            continue
        expected = {name: named[0]["ledger"][name] for name in _ACCOUNT}
        findings.expect_fields(path, branch["ledger"], expected, f"entry {branch['entry']}: ledger")
        findings.expect_equal(
            source, named[0]["event"], "trunk", f"entry {named[0]['entry']}: event"
        )
        if not _is_end_of_trunk(named[0], entries[0], optimizer):
            findings.add(
                f"{source}: entry {named[0]['entry']}",
                f"a trunk of {sum(named[0]['ledger']['phases'])} steps",
                "its end at the last step before the decay",
            )
    return len(branches)


def _is_end_of_trunk(
    entry: Mapping[str, Any], opening: Mapping[str, Any], optimizer: OptimizerConfig
) -> bool:
    """Return whether the learning rate leaves its peak exactly with the step after an entry.

    That is where a trunk ends: after this entry the schedule decays, one step earlier it does not
    yet.

    Args:
        entry: journal entry that is said to be the end of a trunk, with its `ledger`.
        opening: first entry of the same journal, with the prices of the phases.
        optimizer: settings of the schedule.
    """
    ledger = from_plain(Ledger, entry["ledger"], f"entry {entry['entry']}: ledger")
    step = ledger.budget.step_cost(Price(**opening["prices"][0]), opening["positions"][0])
    share_before = (ledger.training_used - step) / ledger.training_amount
    return has_left_peak(optimizer, ledger.training_share) and not has_left_peak(
        optimizer, share_before
    )
