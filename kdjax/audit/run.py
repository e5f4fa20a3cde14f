"""A run's directory, held against its study: manifest, journal, result, metrics and parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdjax.audit.artifacts import AuditedArtifacts
from kdjax.audit.findings import NOTHING, shared_part
from kdjax.audit.snapshots import audit_snapshots
from kdjax.budget import journal
from kdjax.budget.accounting import EVERY_LEDGER
from kdjax.budget.hardware import Peak, utilisation
from kdjax.budget.ledger import Ledger, PhaseSpan
from kdjax.budget.price import PARTS
from kdjax.budget.shared_steps import SharedSteps
from kdjax.config import plain, to_dict
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.study.manifest import ArmCost
from kdjax.training.arm import Arm
from kdjax.training.checksum import sha256
from kdjax.training.params_file import load_params
from kdjax.training.records.metrics_log import CURVE
from kdjax.training.run_mask_rate import run_mask_rate


class RunAudit:
    """A run's directory, held against its study."""

    def __init__(
        self, artifacts: AuditedArtifacts, arm: Arm, cost: ArmCost, seed: int, directory: Path
    ):
        """Take the run; nothing is read yet.

        Args:
            artifacts: what the runs of its study share.
            arm: the run's arm.
            cost: cost of the arm's runs.
            seed: seed of the run.
            directory: the run's directory.
        """
        study = artifacts.study
        self._artifacts = artifacts
        self._study = study
        self._arm = arm
        self._seed = seed
        self._directory = directory
        self._findings = study.findings
        self._cost = cost
        self._budget = study.budget
        self._batch_shapes = [phase.batch_shape(study.batch_shape) for phase in arm.phases]
        # Where a clock decides, how many steps each phase has does not follow from the budget.
        self._spans: tuple[PhaseSpan, ...] = ()
        if self._budget.countable:
            self._spans = arm.schedule_phases(
                self._budget, self._cost.prices, study.batch_shape, self._cost.upfront
            )
        self._mask_rate = run_mask_rate(
            study.config.data, self._budget, self._spans, self._cost.upfront
        )

    def audit(self) -> dict[str, Any]:
        """Audit manifest, journal, result, metrics and parameters.

        Returns:
            The content of result.json; empty where it is missing.
        """
        findings = self._findings
        directory = self._directory
        # One line for a run that is gone, in place of one for each of its files.
        if not directory.is_dir():
            findings.add(directory, "no run", "one for every arm and seed of the recipe")
            return {}
        result_path = directory / "result.json"
        result = findings.read(result_path)
        with findings.record_errors(directory / "manifest.json"):
            self._audit_manifest(directory / "manifest.json")

        # The journal is held against prices and text, the result against the journal.
        path = directory / journal.NAME
        with findings.record_errors(path):
            entries = journal.read(path)
            self._study.tally["entries"] += len(entries)
            ledger = self._audit_ledger(path, entries)
            if result:
                with findings.record_errors(result_path):
                    self._audit_result(result_path, result, ledger, entries[-1])
                    self._audit_shared(result_path, result, entries)
        if result:
            with findings.record_errors(directory / "metrics.jsonl"):
                self._audit_metrics(directory / "metrics.jsonl", result)

        # Where a clock decides, a snapshot's step does not tell its phase.
        if self._spans:
            corpus = self._artifacts.corpus
            audit_snapshots(
                directory,
                lambda steps: self._account(self._phases(steps)),
                self._budget,
                corpus.manifest if corpus is not None else None,
                findings,
            )

        # Parameters are not trained again: they are those that the result's hash names. A run whose
        # training diverged has none.
        path = directory / "params.safetensors"
        if result.get("params_sha256", NOTHING) is None:
            if path.exists():
                findings.add(path, "parameters", "none of a run that diverged")
            return result
        with findings.record_errors(path):
            recorded = result.get("params_sha256", NOTHING)
            findings.expect_equal(path, sha256(load_params(path)), recorded, "SHA-256")
        return result

    def _audit_manifest(self, path: Path) -> None:
        """Audit which arm, seed, budget and recipe the run says it is of."""
        study = self._study
        manifest = self._findings.read(path)
        if not manifest:
            return
        expected = {
            "arm": self._arm.name,
            "seed": self._seed,
            "arm_settings": plain(to_dict(self._arm.config)),
            "cost": to_plain(self._cost),
            "budget": to_plain(self._budget),
            "teacher": self._artifacts.teacher_of(self._seed) if self._arm.needs_teacher else None,
            "config": study.run_config(),
        }
        if self._artifacts.corpus:
            expected["corpus"] = self._artifacts.corpus.digest
        # Only the part of its recipe that all runs share: arms and seeds may have joined.
        config = shared_part(manifest.get("config", NOTHING), expected["config"])
        self._findings.expect_fields(path, {**manifest, "config": config}, expected)

    def _account(self, phases: Sequence[int]) -> dict[str, Any]:
        """Compute the account that a ledger must show after so many steps of each phase."""
        # Every step of a phase costs the same and sees as many sequences.
        steps = sum(phases)
        sequences = 0
        spent = {**dict.fromkeys(EVERY_LEDGER, 0), **self._cost.upfront}
        prices = self._cost.prices
        for phase_steps, batch_shape, price in zip(phases, self._batch_shapes, prices, strict=True):
            sequences += phase_steps * batch_shape.batch_size
            for part, flops in price.parts().items():
                spent[part] += phase_steps * flops
        account: dict[str, Any] = {
            "budget": to_plain(self._budget),
            "spent": spent,
            "phases": self._phases(steps) or list(phases),
            "positions": sequences * self._study.batch_shape.seq_len,
        }

        # The size of stored outputs is not known where they are gone.
        if not self._arm.stored_features:
            account["cache_bytes"] = 0
        elif self._artifacts.cache:
            account["cache_bytes"] = self._artifacts.cache.bytes

        # Steps beyond the budget would read text that no run reads.
        counts = self._artifacts.counts(self._seed, self._mask_rate)
        if counts and (not self._spans or steps <= self._spans[-1].stop):
            account |= counts.at(sequences)
        return account

    def _phases(self, steps: int) -> list[int]:
        """Count the steps of each phase among so many; empty where a clock decides."""
        return [min(max(steps - span.first, 0), span.steps) for span in self._spans]

    def _audit_ledger(self, path: Path, entries: Sequence[Mapping[str, Any]]) -> Ledger:
        """Audit every entry of the journal; return the account that should be at its end."""
        findings = self._findings
        opening = {
            "prices": to_plain(self._cost.prices),
            "positions": [batch_shape.tokens_per_step for batch_shape in self._batch_shapes],
        }
        findings.expect_fields(path, entries[0], opening, "entry 0")
        expected: dict[str, Any] = {}
        accounts: list[dict[str, Any]] = []
        for number, entry in enumerate(entries):
            account = entry["ledger"]
            expected = self._account(account["phases"])
            findings.expect_fields(path, account, expected, f"entry {number}: ledger")

            # An account only grows, but that a restart goes back to an earlier one.
            place = f"{path}: entry {number}"
            is_restart = entry["event"] == "restart"
            if is_restart and account not in accounts:
                known = "one of an entry before"
                findings.add(place, "a restart from an account of its own", known)
            elif not is_restart and accounts and not _follows(accounts[-1], account):
                findings.add(place, "less than in the entry before", "no less, but for restarts")
            accounts.append(account)
        diverged = entries[-1]["event"] == "diverged"
        events = [entries[0]["event"], entries[-1]["event"]]
        last = "diverged" if diverged else "close"
        findings.expect_equal(path, events, ["open", last], "first and last event")

        # At the end the budget is spent, unless the run diverged: to its last step, or until the
        # clock said so.
        ledger = from_plain(Ledger, {**accounts[-1], **expected}, f"{path}: ledger")
        end = [span.steps for span in self._spans]
        used = _before_last_step(ledger)
        if end and not diverged:
            name = f"entry {len(entries) - 1}: ledger.phases at the end"
            findings.expect_equal(path, accounts[-1]["phases"], end, name)
        elif used > self._budget.amount:
            amount = f"at most {self._budget.amount}"
            findings.add(path, f"{used} hours before the last step", amount)
        return ledger

    def _audit_result(
        self, path: Path, result: Mapping[str, Any], ledger: Ledger, closing: Mapping[str, Any]
    ) -> None:
        """Audit the run's result against its account."""
        total = sum(ledger.spent.values())

        # The result repeats the ledger's end in the words of a report.
        phases = []
        prices = self._cost.prices
        for steps, batch_shape, price in zip(
            ledger.steps_by_phase, self._batch_shapes, prices, strict=True
        ):
            flops = steps * price.total
            phases.append({"steps": steps, "batch": batch_shape.batch_size, "flops": flops})
        seq_len = self._study.batch_shape.seq_len
        wall_clock = dict(ledger.seconds)
        if closing["event"] == "close":
            # The evaluation at the end comes after the ledger is closed.
            wall_clock["evaluation"] = result["wall_clock"]["evaluation"]
        expected = {
            "arm": self._arm.name,
            "seed": self._seed,
            "budget": to_plain(self._budget),
            "used": ledger.used,
            "spent": {**ledger.spent, "total": total, "charged": ledger.charged_flops},
            "cache_bytes": ledger.cache_bytes,
            "steps": ledger.steps,
            "phases": phases,
            "positions": ledger.padded_tokens,
            "tokens_seen": ledger.tokens,
            "tokens_unique": ledger.unique_tokens,
            "tokens_masked": ledger.masked_tokens,
            "epochs": ledger.padded_tokens / seq_len / self._artifacts.sequences,
            "wall_clock": wall_clock,
            "params_sha256": closing.get("params_sha256"),
            "ledger_sha256": closing["sha256"],
        }
        # Earlier versions counted no words, and the text may be gone.
        if self._artifacts.corpus is not None:
            words = self._artifacts.corpus.manifest.words_in(ledger.tokens)
            if words is not None or "words_seen" in result:
                expected["words_seen"] = words
        if closing["event"] == "diverged":
            expected["diverged"] = {"step": ledger.steps, "reason": closing["reason"]}
        self._findings.expect_fields(path, result, expected)

        # What the devices did is as measured; their share of the peak follows from it.
        hardware = result["hardware"]
        model = sum(ledger.spent[part] for part in PARTS)
        seconds = ledger.seconds["compute"]
        peak = Peak(**hardware["peak"])
        use: dict[str, Any] = {"model_flops": model}
        for kind, flops in (("model", model), ("hardware", hardware["hardware_flops"])):
            if flops:
                use[f"{kind}_utilisation"] = utilisation(flops, seconds, peak, hardware["devices"])
        self._findings.expect_fields(path, hardware, use, "hardware")

    def _audit_shared(
        self, path: Path, result: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
    ) -> None:
        """Audit what the result says it shares with a run of a smaller budget, by its journal."""
        branches = [entry for entry in entries if entry["event"] == "branch"]
        if not branches:
            self._findings.expect_equal(path, result.get("shared"), None, "shared")
            return
        recorded = branches[0]["shared"]
        ledger = from_plain(Ledger, branches[0]["ledger"], f"{path}: ledger")
        shared = SharedSteps.from_ledger(recorded["study"], ledger, recorded["trunk_sha256"])
        for place, value in (
            (path, result.get("shared")),
            (path.with_name(journal.NAME), recorded),
        ):
            self._findings.expect_equal(place, value, to_plain(shared), "shared")

    def _audit_metrics(self, path: Path, result: Mapping[str, Any]) -> None:
        """Audit the figures written during training: each line's FLOPs, and the result's curve."""
        text = path.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.split("\n") if line]
        curve = [line for line in lines if set(CURVE).intersection(line)]
        result_path = path.with_name("result.json")
        self._findings.expect_equal(result_path, result.get("curve"), curve, "curve")
        # Where a clock decides, a line's step does not tell its phase.
        if not self._spans:
            return
        for line in lines:
            spent = self._account(self._phases(line["step"]))["spent"]
            flops = self._budget.charges(spent)
            self._findings.expect_equal(path, line["flops"], flops, f"step {line['step']}: flops")


def _follows(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether nothing on a ledger is less than it was."""
    for name in ("positions", "tokens", "unique_tokens", "masked_tokens"):
        if after[name] < before[name]:
            return False
    seconds = after["seconds"]
    return all(amount <= seconds.get(kind, -1.0) for kind, amount in before["seconds"].items())


def _before_last_step(ledger: Ledger) -> float:
    """Return the hours that the clock showed, at least, when the last step began."""
    # Evaluation and checkpoints may have come after that step.
    counted = 0.0
    for kind in ledger.budget.clock:
        if kind not in ("evaluation", "checkpoint"):
            counted += ledger.seconds.get(kind, 0.0)
    return (counted - ledger.step_seconds) / 3600
