"""The checkpoints of a teacher's training: Hugging Face directories, each with its card."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from kdjax import models
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import Price
from kdjax.config import Config, plain, to_dict
from kdjax.data.corpus import Corpus
from kdjax.evaluation.mlm import HeldOut
from kdjax.models import Model, zoo
from kdjax.storage.files import write_json
from kdjax.study.artifacts.corpus import tokenizer_of
from kdjax.study.batches import held_out_batches
from kdjax.study.runs.run_backup import RunBackup
from kdjax.study.teachers.cards import trained_card
from kdjax.training.checksum import sha256
from kdjax.training.teacher.directories import CARD, checkpoint_name

_MASKED_TEXT = ("seq_len", "max_predictions", "mlm_probability", "mask_copies")
"""Settings of the text, and of what is masked of it, that a teacher depends on."""


def training_identity(config: Config, seed: int, corpus_digest: str) -> dict[str, Any]:
    """Return the settings that a teacher's parameters depend on, as plain values.

    Args:
        config: resolved recipe, with `data` and `teacher` settings.
        seed: random seed of the teacher's training.
        corpus_digest: digest of the text.
    """
    settings: dict[str, Any] = plain(to_dict(config.teacher.train))
    del settings["seeds"]  # a teacher is not another for those trained beside it
    data: dict[str, Any] = {name: getattr(config.data, name) for name in _MASKED_TEXT}
    # Named only where it is not BERT's, so that teachers from before there was a choice count.
    if masking := config.data.masking.identity():
        data["masking"] = masking
    return {
        "architecture": to_dict(zoo.resolve(config.teacher.architecture)),
        "train": settings,
        "data": data,
        "corpus": corpus_digest,
        "seed": seed,
    }


class TeacherCheckpoints:
    """The teachers of one training, as each was at a share of its budget."""

    def __init__(
        self, config: Config, corpus: Corpus, directory: Path, seed: int, backup: RunBackup
    ):
        """Take the training whose teachers are saved.

        Args:
            config: resolved recipe, with `teacher` and `evaluation` settings.
            corpus: prepared text that each teacher is measured on.
            directory: directory of the training.
            seed: seed of the training.
            backup: place of the training's files besides its directory.
        """
        self._config = config
        self._corpus = corpus
        self._directory = directory
        self._seed = seed
        self._backup = backup
        self._settings = config.teacher.train
        self._folders = [checkpoint_name(share) for share in self._settings.checkpoints]

    @cached_property
    def held_out(self) -> HeldOut:
        """Build the text that each is measured on."""
        return HeldOut(held_out_batches(self._config, self._corpus))

    def missing(self) -> list[str]:
        """List the folders that are not here, or not whole."""
        folders = self._folders
        return [name for name in folders if not (self._directory / name / CARD).exists()]

    def download(self) -> None:
        """Fetch what another machine has saved."""
        for folder in self._folders:
            self._backup.download_folder(folder, CARD)

    def save(self, number: int, params: Any, ledger: Ledger, step_price: Price) -> None:
        """Save the teacher at the end of a phase of its training, which is a share of its budget.

        Args:
            number: number of the phase, from 0.
            params: parameters of the teacher at the end of the phase.
            ledger: account of what the training has spent.
            step_price: price of a step of the training.
        """
        # A run that is resumed at the end of a phase saves it a second time.
        target = self._directory / self._folders[number]
        if not (target / CARD).exists():
            model = Model(zoo.resolve(self._config.teacher.architecture), params)
            facts = self._facts(self._settings.checkpoints[number], model, ledger, step_price)
            tokenizer = tokenizer_of(self._config, self._corpus)
            card = trained_card(facts, self._corpus)
            models.save_pretrained(model, target, tokenizer=tokenizer, card=card)
            write_json(target / CARD, facts)
        self._backup.upload_folder(target.name, CARD)

    def _facts(
        self, share: float, model: Model, ledger: Ledger, step_price: Price
    ) -> dict[str, Any]:
        """Return the facts of the teacher at a share of its budget."""
        train_sequences = self._corpus.sequences("train")
        words = self._corpus.manifest.words_in(ledger.tokens)
        quality = self.held_out.measure(model.config, model.params)
        return {
            "source": "",
            "note": self._config.teacher.note,
            "architecture": asdict(model.config),
            "encoder": "trained",
            "training_flops": sum(ledger.spent.values()),
            "tuning_flops": 0,
            "head_flops": 0,
            "mlm_loss": quality.loss,
            "mlm_accuracy": quality.accuracy,
            "params_sha256": sha256(model.params),
            "pretraining": {
                "seed": self._seed,
                "at": share,
                "budget": int(self._settings.budget),
                "batch_size": self._settings.batch_size,
                "steps": ledger.steps,
                "step_flops": step_price.total,
                "tokens": ledger.tokens,
                "unique_tokens": ledger.unique_tokens,
                "epochs": ledger.padded_tokens / self._config.data.seq_len / train_sequences,
                **({} if words is None else {"words": words}),
                "corpus": self._corpus.digest,
                "corpus_tokens": self._corpus.tokens("train"),
            },
            "identity": training_identity(self._config, self._seed, self._corpus.digest),
        }
