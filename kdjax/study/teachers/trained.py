"""The training of a study's own teachers, saved at its checkpoints as Hugging Face directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdjax import models
from kdjax.arms.recipe_arms import batch_shape_of
from kdjax.budget import journal
from kdjax.budget.accounting import Budget
from kdjax.budget.hardware import peak
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import Price
from kdjax.config import Config, ModelConfig, TrainConfig, first_difference, plain, to_dict
from kdjax.data.corpus import Corpus
from kdjax.errors import InputError, Unfinished
from kdjax.models import zoo
from kdjax.parallel import hosts
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.storage.files import read_json, write_json
from kdjax.storage.typed_json import check_fields, to_plain
from kdjax.study.artifacts.corpus import refuse_repeated_text
from kdjax.study.batches import train_batches
from kdjax.study.machine import hardware_use, versions
from kdjax.study.runs.run_backup import RESULT, RunBackup
from kdjax.study.teachers.checkpoints import TeacherCheckpoints, training_identity
from kdjax.study.teachers.from_directory import Teacher
from kdjax.study.writer import sole_writer
from kdjax.training.compiled_phase import CompiledPhase, compile_phase
from kdjax.training.outcome import Outcome
from kdjax.training.phase import BatchShape
from kdjax.training.records import metrics_log
from kdjax.training.records.sinks import About
from kdjax.training.run_spec import RunSpec
from kdjax.training.teacher.directories import (
    checkpoint_name,
    read_own_card,
    read_teacher,
    seed_directory,
)
from kdjax.training.teacher.pretraining import (
    pretraining_phases,
    pretraining_price,
    pretraining_spans,
    stream_seed,
)
from kdjax.training.train import train

FINISHED = (journal.NAME, metrics_log.NAME, RESULT)
"""The files of a finished training besides its checkpoints."""


def check_trained_teacher(config: Config, layout: Layout) -> None:
    """Check the training of a recipe's teachers before a corpus is prepared.

    Raises:
        InputError: a batch that the devices do not share evenly, a budget that buys no step before
            one of the checkpoints, or sequences longer than the architecture's positions.
    """
    settings = config.teacher.train
    architecture = zoo.resolve(config.teacher.architecture)
    layout.check_batch(settings.batch_size, config.train.grad_accum_steps)
    if config.data.seq_len > architecture.max_positions:
        raise InputError(
            f"data.seq_len is {config.data.seq_len}, expected at most "
            f"teacher.architecture.max_positions, {architecture.max_positions} tokens"
        )
    batch_shape = batch_shape_of(config, settings.batch_size)
    pretraining_spans(settings, pretraining_price(architecture, settings, batch_shape), batch_shape)


def trained_teacher(
    config: Config, corpus: Corpus, directory: Path, seed: int, layout: Layout, reporter: Reporter
) -> Teacher:
    """Train one seed's teacher, or go on with its training, or find it done.

    Args:
        config: resolved recipe, with `data`, `teacher`, `train` and `evaluation` settings.
        corpus: prepared text that the teacher is trained and measured on.
        directory: directory that holds the seeds' directories.
        seed: random seed of the teacher's training.
        layout: layout of arrays on the devices.
        reporter: receiver of reports on progress.

    Returns:
        The teacher as it was at `teacher.at` of its budget.

    Raises:
        InputError: the directory holds a teacher of other settings or text, the loss is not finite,
            or text would repeat under data.regime 'unlimited'.
        Unfinished: training stopped for want of room or because checkpoints are damaged; what is
            done of it stays.
    """
    training = _Training(config, corpus, seed_directory(directory, seed), seed, layout, reporter)
    # Done here, done on another machine, or still to be done by all processes together.
    with sole_writer(training.directory, training.backup.directory):
        training.register()
        training.download()
        if not hosts.all_processes(training.finished):
            training.run()
        training.backup.upload_and_prune()
    # Every checkpoint was saved; the recipe says which of them teaches.
    chosen = training.directory / checkpoint_name(config.teacher.at)
    return Teacher(read_teacher(chosen), read_own_card(chosen))


def _check_same_training(
    place: Any, manifest: dict[str, Any] | None, identity: dict[str, Any]
) -> None:
    """Check that the manifest at `place`, if any, is of the training with this identity.

    Raises:
        InputError: the manifest is another training's.
    """
    if manifest is None:
        return
    check_fields(manifest, {"identity": dict[str, Any], "price": Price}, f"{place}:")
    difference = first_difference(manifest["identity"], identity)
    if difference:
        name, before, now = difference
        raise InputError(
            f"{place}: holds a teacher whose {name} is {before!r}, expected {now!r}; use a new "
            "directory"
        )


class _Training:
    """One teacher's training in its directory.

    Attributes:
        directory: directory of the seed.
        backup: place of its files besides its directory.
    """

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        directory: Path,
        seed: int,
        layout: Layout,
        reporter: Reporter,
    ):
        self.directory = directory
        self.backup = RunBackup(config.train.checkpoint.directory, directory, "teacher", FINISHED)
        self._config = config
        self._corpus = corpus
        self._seed = seed
        self._layout = layout
        self._reporter = reporter
        self._settings = config.teacher.train
        self._architecture: ModelConfig = zoo.resolve(config.teacher.architecture)
        self._batch_shape: BatchShape = batch_shape_of(config, self._settings.batch_size)
        self._checkpoints = TeacherCheckpoints(config, corpus, directory, seed, self.backup)
        self._name = f"teacher, seed {seed}"

    @property
    def finished(self) -> bool:
        """Return whether the training has ended and all its checkpoints are here.

        Raises:
            InputError: its result is not whole.
        """
        result = self.directory / RESULT
        if not result.exists():
            return False
        read_json(result)
        return not self._checkpoints.missing()

    def register(self) -> None:
        """Take the directory, and the backup that outlives the machine, for this training.

        Raises:
            InputError: one of them holds another training.
        """
        identity = training_identity(self._config, self._seed, self._corpus.digest)
        # Both places may hold another training.
        local = self.backup.local_manifest()
        stored = self.backup.stored_manifest()
        _check_same_training(self.backup.manifest_path, local, identity)
        _check_same_training(self.backup.directory, stored, identity)
        manifest = local or stored
        if manifest is None:
            # The price holds for good from now on: another XLA may count otherwise.
            step_price = pretraining_price(self._architecture, self._settings, self._batch_shape)
            manifest = {
                "identity": identity,
                "price": to_plain(step_price),
                "config": plain(to_dict(self._config)),
                **versions(),
            }
        self.backup.register(manifest)
        self._price = Price(**manifest["price"])

    def download(self) -> None:
        """Fetch what another machine has finished."""
        self.backup.download()
        self._checkpoints.download()

    def run(self) -> None:
        """Train until the budget is spent, saving a teacher at each checkpoint's share of it.

        Raises:
            Diverged: the loss is not finite.
            InputError: the text would be repeated where it must not.
            Unfinished: training cannot go on, and what it came to so far stays.
        """
        spans = pretraining_spans(self._settings, self._price, self._batch_shape)
        sequences = spans[-1].stop * self._batch_shape.batch_size
        refuse_repeated_text(self._config, self._corpus, "teacher.train", sequences)
        compiled_phases = self._compiled_phases()
        try:
            (outcome,) = train(self._run_spec(compiled_phases))
        except InputError as error:
            # Hours of training must not go because, say, the disk is full.
            raise Unfinished(str(error)) from None
        outcome.require_finite()
        if missing := self._checkpoints.missing():
            raise Unfinished(
                f"{self.directory}: {missing[0]} is missing and training has gone on past it, "
                "expected it there; move the directory away to train this teacher again"
            )
        write_json(self.directory / RESULT, self._result(compiled_phases, outcome))

    def _compiled_phases(self) -> list[CompiledPhase]:
        """Return the training's phases, one up to each checkpoint; they share one compiled step."""
        self._reporter.stage(f"{self._name}: compiling")
        settings = self._config.train
        stream = train_batches(
            self._config, self._corpus, self._settings.batch_size, stream_seed(self._seed)
        )
        compiled_phases: list[CompiledPhase] = []
        for phase in pretraining_phases(self._architecture, self._settings):
            compiled_phases += compile_phase(
                phase, self._price, self._batch_shape, [stream], self._layout, settings
            )
        return compiled_phases

    def _run_spec(self, compiled_phases: Sequence[CompiledPhase]) -> RunSpec:
        """Return the run, ready to be trained."""
        seed = stream_seed(self._seed)
        settings = self._config.train
        held_out = self._checkpoints.held_out
        # Only when and where things are written down is the students' setting; what is trained is
        # the teacher's own.
        training = TrainConfig(
            batch_size=self._settings.batch_size,
            optimizer=self._settings.optimizer,
            compute=settings.compute,
            checkpoint=settings.checkpoint,
            log=settings.log,
            evaluations=settings.evaluations,
        )
        return RunSpec(
            compiled_phases,
            Budget.flops(self._settings.budget),
            start=models.init(self._architecture, seed).params,
            seed=seed,
            config=training,
            directory=self.directory,
            repeats=self._config.data.regime != "unlimited",
            evaluate=lambda params: {"mlm_loss": held_out.measure(self._architecture, params).loss},
            watch=self._reporter.track(self._name),
            phase_ended=self._save,
            checkpoints=self.backup.checkpoints,
            warn=self._reporter.warn,
            about=About(
                self.directory.parent.resolve().name,
                "teacher",
                self._seed,
                plain(to_dict(self._config)),
            ),
            peak=peak(self._layout.mesh.local_devices[0]),
        )

    def _save(self, number: int, params: Any, ledger: Ledger) -> None:
        """Evaluate and save the teacher at the end of a phase of its training."""
        self._reporter.stage(
            f"{self._name}: evaluating and saving, {ledger.share:.0%} of its budget"
        )
        self._checkpoints.save(number, params, ledger, self._price)

    def _result(self, compiled_phases: Sequence[CompiledPhase], outcome: Outcome) -> dict[str, Any]:
        """Return the record of a teacher's whole training."""
        ledger = outcome.ledger
        return {
            "seed": self._seed,
            "budget": to_plain(ledger.budget),
            "spent": {
                **ledger.spent,
                "total": sum(ledger.spent.values()),
                "charged": ledger.charged_flops,
            },
            "steps": ledger.steps,
            "phases": list(ledger.steps_by_phase),
            "positions": ledger.padded_tokens,
            "tokens_seen": ledger.tokens,
            "tokens_unique": ledger.unique_tokens,
            "tokens_masked": ledger.masked_tokens,
            "wall_clock": ledger.seconds,
            "hardware": to_plain(hardware_use(compiled_phases, ledger, outcome.side_by_side)),
            "curve": outcome.curve,
            "params_sha256": outcome.params_sha256,
            "ledger_sha256": outcome.journal_sha256,
        }
