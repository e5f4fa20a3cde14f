"""The audit of a teacher that a study trained: price, ledger, checkpoints and their cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdjax import models
from kdjax.arms.recipe_arms import batch_shape_of
from kdjax.audit.counts import Counts
from kdjax.audit.recorded import RecordedStudy
from kdjax.budget import journal
from kdjax.budget.accounting import EVERY_LEDGER
from kdjax.budget.ledger import PhaseSpan
from kdjax.budget.price import Price
from kdjax.models import zoo
from kdjax.storage.typed_json import to_plain
from kdjax.study.runs.run_backup import MANIFEST, RESULT
from kdjax.study.teachers.checkpoints import training_identity
from kdjax.training.checksum import sha256
from kdjax.training.teacher.directories import CARD, checkpoint_name
from kdjax.training.teacher.pretraining import pretraining_price, pretraining_spans


class TeacherAudit:
    """One seed's training, held against the recipe."""

    def __init__(self, study: RecordedStudy, directory: Path, seed: int):
        """Take the training; nothing is read yet.

        Args:
            study: the study.
            directory: directory of this seed's training.
            seed: the teacher's seed.
        """
        self._study = study
        self._directory = directory
        self._seed = seed
        self._config = study.config
        self._findings = study.findings
        self._settings = study.config.teacher.train
        self._batch_shape = batch_shape_of(study.config, self._settings.batch_size)

    def audit(self, corpus_digest: str | None, counts: Counts | None) -> dict[str, Any]:
        """Audit all of it.

        Args:
            corpus_digest: digest of the study's text; None where the text is gone.
            counts: tokens of the text in this teacher's order; None where the text is gone.

        Returns:
            The card of the checkpoint at `teacher.at`; empty where it is missing.
        """
        findings = self._findings
        directory = self._directory

        # Without its text, the manifest's word is taken for which text it was.
        manifest = findings.read(directory / MANIFEST)
        with findings.record_errors(directory / MANIFEST):
            digest = corpus_digest or manifest["identity"]["corpus"]
            findings.expect_equal(
                directory / MANIFEST,
                manifest["identity"],
                training_identity(self._config, self._seed, digest),
                "identity",
            )

        # Everything below follows from the price of a step; under another JAX, from the recorded
        # one.
        price = pretraining_price(
            zoo.resolve(self._config.teacher.architecture), self._settings, self._batch_shape
        )
        if manifest:
            findings.expect_equal(
                directory / MANIFEST, manifest["price"], to_plain(price), "price", self._study.note
            )
            if self._study.note:
                price = Price(**manifest["price"])
        spans = pretraining_spans(self._settings, price, self._batch_shape)

        # The journal, then each checkpoint along the way, then the one that students learn from.
        path = directory / journal.NAME
        with findings.record_errors(path):
            self._ledger(path, price, spans, counts)
        for number, share in enumerate(self._settings.checkpoints):
            checkpoint = directory / checkpoint_name(share)
            with findings.record_errors(checkpoint):
                self._checkpoint(checkpoint, share, price, spans[number], counts)
        return findings.read(directory / checkpoint_name(self._config.teacher.at) / CARD)

    def _account(
        self, phases: Sequence[int], price: Price, counts: Counts | None
    ) -> dict[str, Any]:
        """Compute the account that a ledger must show after so many steps up to each checkpoint."""
        steps = sum(phases)
        parts = price.parts()
        account: dict[str, Any] = {
            "spent": {name: steps * parts.get(name, 0) for name in EVERY_LEDGER},
            "positions": steps * self._batch_shape.tokens_per_step,
        }
        if counts is not None:
            account |= counts.at(steps * self._batch_shape.batch_size)
        return account

    def _ledger(
        self, path: Path, price: Price, spans: Sequence[PhaseSpan], counts: Counts | None
    ) -> None:
        """Audit every entry of the journal, and the result against the last."""
        entries = journal.read(path)
        self._study.tally["entries"] += len(entries)
        for number, entry in enumerate(entries):
            ledger = entry["ledger"]
            expected = self._account(ledger["phases"], price, counts)
            self._findings.expect_equal(
                path, {name: ledger[name] for name in expected}, expected, f"entry {number}: ledger"
            )

        # At the end every step of the budget is done, and the result says what the ledger does.
        end = [span.steps for span in spans]
        last = entries[-1]
        self._findings.expect_equal(
            path,
            last["ledger"]["phases"],
            end,
            f"entry {len(entries) - 1}: ledger.phases at the end",
        )
        result = self._findings.read(self._directory / RESULT)
        spent = last["ledger"]["spent"]
        total = sum(spent.values())
        expected = {
            "seed": self._seed,
            "spent": {**spent, "total": total, "charged": total},
            "steps": sum(end),
            "phases": end,
            "tokens_seen": last["ledger"]["tokens"],
            "params_sha256": last["params_sha256"],
            "ledger_sha256": last["sha256"],
        }
        self._findings.expect_fields(self._directory / RESULT, result, expected)

    def _checkpoint(
        self, checkpoint: Path, share: float, price: Price, span: PhaseSpan, counts: Counts | None
    ) -> None:
        """Audit one checkpoint's card, and its parameters."""
        card: Mapping[str, Any] = self._findings.read(checkpoint / CARD)
        if not card:
            return

        # The card says how far training had come, what that cost, and whose the weights are.
        training = {"seed": self._seed, "at": share, "steps": span.stop, "step_flops": price.total}
        if counts is not None:
            training["tokens"] = counts.at(span.stop * self._batch_shape.batch_size)["tokens"]
        self._findings.expect_fields(
            checkpoint / CARD, card["pretraining"], training, "pretraining"
        )
        costs = {"training_flops": span.stop * price.total, "tuning_flops": 0, "head_flops": 0}
        self._findings.expect_fields(checkpoint / CARD, card, costs)
        params = models.from_pretrained(checkpoint).params
        self._findings.expect_equal(
            checkpoint / CARD, card["params_sha256"], sha256(params), "params_sha256"
        )
