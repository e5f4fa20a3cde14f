"""`kdjax export`: a finished run as a directory that transformers or sentence-transformers loads,
and as a repository of the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kdjax.data.tasks.predictions import check_empty
from kdjax.errors import InputError
from kdjax.models import Model
from kdjax.models.families import transformers_classes
from kdjax.models.families.task_heads import check_head_exportable
from kdjax.progress import Reporter
from kdjax.storage import hub_push, locks
from kdjax.storage.hub import HubName
from kdjax.storage.whole_directory import whole_directory
from kdjax.study.export import names
from kdjax.study.export.card import ExportedModel, model_card
from kdjax.study.export.directory import FILES, Format, write_directory
from kdjax.study.export.finetuned import check_task, tune_again
from kdjax.study.export.revisions import chosen_revisions
from kdjax.study.runs.recorded_run import RecordedRun, recorded_run
from kdjax.study.runs.snapshots import PREFIX, Snapshot


@dataclass(frozen=True)
class ExportOptions:
    """What is exported of a run, and where to.

    Attributes:
        task: task that the student is fine-tuned on first; empty: none.
        protocol: `grid` or `fixed`, whose setting is taken then; empty: `grid` where the run has
            it.
        glue: where GLUE lies now; empty: where the recipe says.
        library: library that the directory is for.
        license: the Hub's identifier of the model's licence; empty: nobody has said one.
        push: repository of the Hub, OWNER/NAME; empty: nothing is pushed.
        revision: a snapshot of the run, `chck_…`, which is exported, and pushed to the branch of
            that name; else a branch of the repository for the finished student; empty: `main`.
        revisions: whether the finished student and every snapshot are exported, a folder and a
            branch each.
        private: whether a repository that is made is private.
    """

    task: str = ""
    protocol: str = ""
    glue: str = ""
    library: str = "transformers"
    license: str = ""
    push: str = ""
    revision: str = ""
    revisions: bool = False
    private: bool = False


def export_run(run_dir: Path, out: Path, options: ExportOptions = ExportOptions()) -> list[str]:
    """Write a finished run's student to a directory, and push it if asked.

    All that can be wrong is found before anything is trained or written; the directory is made
    whole or not at all, and a branch of a repository gets all of it in one commit.

    Args:
        run_dir: the run's directory, `runs/ARM-seedN` of a study.
        out: directory to make; where it is there, it is empty.
        options: what is exported, and where to.

    Returns:
        A sentence on each thing that was written.

    Raises:
        InputError: no finished run, a model that no class of transformers computes, a task that the
            run was not fine-tuned on, no such snapshot, a directory that is not empty, no token, or
            a Hub that refuses.
    """
    library = _check_options(options)
    run = recorded_run(run_dir)
    revisions = chosen_revisions(run, options.revision, every=options.revisions)
    protocol = ""
    if options.task:
        protocol = check_task(run, options.task, options.protocol)
        check_head_exportable(run.arm.student_config, run.finetuning.pool)
    else:
        transformers_classes.check_exportable(run.arm.student_config)
    license_name = names.check_license(options.license)
    check_empty(out)
    targets: dict[str, HubName] = {}
    if options.push:
        for branch in revisions:
            targets[branch] = hub_push.target(options.push, branch)

    with ExitStack() as writers:
        if options.task:
            writers.enter_context(locks.hold(run_dir))
        writers.enter_context(locks.hold(out))
        reporter = writers.enter_context(Reporter())
        exporter = _Exporter(run, library, license_name, options, protocol, reporter)
        # Of several revisions each has a folder of its name.
        folders = dict.fromkeys(revisions, "")
        if options.revisions:
            folders = {name: name for name in revisions}
        exported = {}
        with whole_directory(out) as unfinished:
            for name, snapshot in revisions.items():
                exported[name] = exporter.write(unfinished / folders[name], snapshot)
        lines = []
        for name, model in exported.items():
            lines.append(_line(out / folders[name], model))
        # The finished student is last: where it is, so is the rest.
        for name, target in reversed(targets.items()):
            folder = out / folders[name]
            reporter.status(f"pushing to {target}")
            line = hub_push.push(
                folder, target, _message(exported[name]), private=options.private, replaces=FILES
            )
            lines.append(line)
    return lines


class _Exporter:
    """Writes revisions of a run's student, alike but for their weights."""

    def __init__(
        self,
        run: RecordedRun,
        library: Format,
        license_name: str,
        options: ExportOptions,
        protocol: str,
        reporter: Reporter,
    ):
        self._run = run
        self._library: Format = library
        self._license = license_name
        self._options = options
        self._protocol = protocol
        self._reporter = reporter
        self._tokenizer = run.tokenizer()

    def write(self, directory: Path, snapshot: Snapshot | None) -> ExportedModel:
        """Write a revision to a directory: a snapshot, or the finished student for None.

        Raises:
            InputError: its parameters are not those that were recorded, or a file is damaged.
        """
        exported = self._exported(snapshot)
        config = exported.model.config
        head = exported.tuned.head if exported.tuned is not None else None
        write_directory(
            directory,
            exported.model,
            tokenizer=self._tokenizer,
            card=model_card(exported),
            head=head,
            library=self._library,
            seq_len=min(self._run.config.data.seq_len, config.max_positions),
        )
        return exported

    def _exported(self, snapshot: Snapshot | None) -> ExportedModel:
        """Return a revision as it leaves, fine-tuned if that was asked for."""
        run = self._run
        params = run.params() if snapshot is None else run.params_at(snapshot)
        if not self._options.task:
            model = Model(run.arm.student_config, _leaving(run, params, self._library))
            return ExportedModel(run, model, self._library, self._license, snapshot=snapshot)
        tuned = tune_again(
            run,
            params,
            self._options.task,
            self._protocol,
            self._reporter,
            glue=self._options.glue,
        )
        model = Model(run.arm.student_config, dict(tuned.encoder))
        return ExportedModel(run, model, self._library, self._license, tuned)


def _check_options(options: ExportOptions) -> Format:
    """Check options that contradict one another; return the library.

    Raises:
        InputError: an unknown library, or an option without the one that it belongs to.
    """
    if options.library not in get_args(Format):
        raise InputError(
            f"--format is {options.library!r:.80}, expected {' or '.join(get_args(Format))}"
        )
    if options.task and options.library == "sentence-transformers":
        raise InputError(
            "--task with --format sentence-transformers, expected one of them: that library reads "
            "the encoder alone"
        )
    for name in ("protocol", "glue"):
        if getattr(options, name) and not options.task:
            raise InputError(f"--{name} without --task, expected a task that is fine-tuned on")
    if options.revision and options.revisions:
        raise InputError("--revision and --revisions, expected one of them: one, or all of them")
    snapshots = options.revisions or options.revision.startswith(PREFIX)
    if options.task and snapshots:
        raise InputError(
            "--task with a snapshot, expected one of them: no setting was chosen for students on "
            "their way"
        )
    for name in ("revision", "private"):
        needs_push = name == "private" or not snapshots
        if getattr(options, name) and needs_push and not options.push:
            raise InputError(f"--{name} without --push, expected a repository, OWNER/NAME")
    return "transformers" if options.library == "transformers" else "sentence-transformers"


def _leaving(run: RecordedRun, params: Mapping[str, Any], library: Format) -> dict[str, Any]:
    """Return the parameters that leave: without an MLM head that is untrained, or not read."""
    keeps_head = run.arm.trains_mlm_head and library == "transformers"
    return {name: part for name, part in params.items() if keeps_head or name != "mlm"}


def _line(directory: Path, exported: ExportedModel) -> str:
    """Return a line on the directory that was written, and on how to load it."""
    loader = exported.auto_class
    if exported.library == "sentence-transformers":
        loader = "SentenceTransformer"
    line = f"{directory}: {loader} loads it"
    if exported.snapshot is not None:
        line += f"; after {exported.snapshot.words_seen:,} words"
    if exported.tuned is None and not exported.run.arm.trains_mlm_head:
        line += "; it has no trained MLM head"
    if exported.tuned is not None:
        line += f"; {exported.tuned.task}, {exported.tuned.as_recorded}"
    return line


def _message(exported: ExportedModel) -> str:
    """Return the message of a commit."""
    result = exported.run.result
    at_words = ""
    if exported.snapshot is not None:
        at_words = f" after {exported.snapshot.words_seen:,} words"
    return f"{result.arm}, seed {result.seed}{at_words}, by kdjax"
