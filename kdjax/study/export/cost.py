"""What a student cost, for its card: the ledger of its run, or as it stood at a snapshot."""

from __future__ import annotations

from kdjax.report import numbers
from kdjax.study.runs.recorded_run import RecordedRun
from kdjax.study.runs.snapshots import Snapshot


def cost_section(run: RecordedRun, snapshot: Snapshot | None = None) -> str:
    """Return the card's section on FLOPs, steps and text, in Markdown.

    Args:
        run: the run.
        snapshot: snapshot whose cost it is; None: that of the finished student.
    """
    rows = {"budget of the run": numbers.budget(run.result.budget)}
    spent = run.result.spent if snapshot is None else snapshot.spent
    for account, flops in spent.items():
        if flops and account not in ("total", "charged"):
            rows[f"FLOPs of `{account}`"] = f"{flops:,}"
    rows |= {
        "FLOPs in all": f"{spent.get('total', 0):,}",
        "of them charged to the budget": f"{spent.get('charged', 0):,}",
    }
    rows |= _of_run(run) if snapshot is None else _of_snapshot(run, snapshot)
    table = ["| | |", "|---|---|"]
    table += [f"| {name} | {value} |" for name, value in rows.items()]
    note = "FLOPs are XLA's count of the reference form of each step."
    return "\n".join([*table, "", note])


def _of_run(run: RecordedRun) -> dict[str, str]:
    """Return the text a finished student has seen, and the hashes that it can be traced by."""
    result = run.result
    return {
        "steps": f"{result.steps:,}",
        "tokens seen, without padding": f"{result.tokens_seen:,}",
        "of them for the first time": f"{result.tokens_unique:,}",
        "words seen": "not counted" if result.words_seen is None else f"{result.words_seen:,}",
        "epochs": f"{result.epochs:.4g}",
        "SHA-256 of the parameters": f"`{result.params_sha256}`",
        "last entry of the ledger": f"`{result.ledger_sha256}`",
    }


def _of_snapshot(run: RecordedRun, snapshot: Snapshot) -> dict[str, str]:
    """Return the text a student had seen at a snapshot, and the hash that it can be traced by."""
    epochs = run.result.epochs * snapshot.padded_tokens / max(1, run.result.padded_tokens)
    return {
        "steps": f"{snapshot.steps:,} of the run's {run.result.steps:,}",
        "tokens seen, without padding": f"{snapshot.tokens_seen:,}",
        "of them for the first time": f"{snapshot.tokens_unique:,}",
        "words seen": f"{snapshot.words_seen:,}",
        "epochs": f"{epochs:.4g}",
        "SHA-256 of the parameters": f"`{snapshot.params_sha256}`",
    }
