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
from kdjax.storage.whole_directory import whole_directory
from kdjax.study.export import names
from kdjax.study.export.card import ExportedModel, model_card
from kdjax.study.export.directory import FILES, Format, write_directory
from kdjax.study.export.finetuned import check_task, tune_again
from kdjax.study.runs.recorded_run import RecordedRun, recorded_run


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
        revision: branch of the repository; empty: `main`.
        private: whether a repository that is made is private.
    """

    task: str = ""
    protocol: str = ""
    glue: str = ""
    library: str = "transformers"
    license: str = ""
    push: str = ""
    revision: str = ""
    private: bool = False


def export_run(run_dir: Path, out: Path, options: ExportOptions = ExportOptions()) -> list[str]:
    """Write a finished run's student to a directory, and push it if asked.

    All that can be wrong is found before anything is trained or written; the directory is made
    whole or not at all, and a repository gets all of it in one commit.

    Args:
        run_dir: the run's directory, `runs/ARM-seedN` of a study.
        out: directory to make; where it is there, it is empty.
        options: what is exported, and where to.

    Returns:
        A line for people on each thing that was written.

    Raises:
        InputError: no finished run, a model that no class of transformers computes, a task that the
            run was not fine-tuned on, a directory that is not empty, no token, or a Hub that
            refuses.
    """
    library = _check_options(options)
    run = recorded_run(run_dir)
    protocol = ""
    if options.task:
        protocol = check_task(run, options.task, options.protocol)
        check_head_exportable(run.arm.student, run.finetuning.pool)
    else:
        transformers_classes.check_exportable(run.arm.student)
    license_name = names.check_license(options.license)
    check_empty(out)
    target = None
    if options.push:
        target = hub_push.target(options.push, options.revision)

    with ExitStack() as writers:
        if options.task:
            writers.enter_context(locks.hold(run_dir))
        writers.enter_context(locks.hold(out))
        reporter = writers.enter_context(Reporter())
        params = run.params()
        tokenizer = run.tokenizer()
        tuned = None
        if options.task:
            tuned = tune_again(run, params, options.task, protocol, reporter, glue=options.glue)
            model = Model(run.arm.student, dict(tuned.encoder))
        else:
            model = Model(run.arm.student, _leaving(run, params, library))
        exported = ExportedModel(run, model, library, license_name, tuned)
        with whole_directory(out) as unfinished:
            write_directory(
                unfinished,
                model,
                tokenizer=tokenizer,
                card=model_card(exported),
                head=None if tuned is None else tuned.head,
                library=library,
                seq_len=min(run.config.data.seq_len, model.config.max_positions),
            )
        lines = [_line(out, exported)]
        if target is not None:
            reporter.status(f"pushing to {target}")
            lines.append(
                hub_push.push(
                    out,
                    target,
                    _message(exported),
                    private=options.private,
                    replaces=FILES,
                )
            )
    return lines


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
    for name in ("revision", "private"):
        if getattr(options, name) and not options.push:
            raise InputError(f"--{name} without --push, expected a repository, OWNER/NAME")
    return "transformers" if options.library == "transformers" else "sentence-transformers"


def _leaving(run: RecordedRun, params: Mapping[str, Any], library: Format) -> dict[str, Any]:
    """Return the parameters that leave: without an MLM head that is untrained, or not read."""
    keeps_head = run.arm.trains_mlm_head and library == "transformers"
    return {name: part for name, part in params.items() if keeps_head or name != "mlm"}


def _line(directory: Path, exported: ExportedModel) -> str:
    """Say what was written where, and how it is loaded."""
    loader = exported.auto_class
    if exported.library == "sentence-transformers":
        loader = "SentenceTransformer"
    line = f"{directory}: {loader} loads it"
    if exported.tuned is None and not exported.run.arm.trains_mlm_head:
        line += "; it has no trained MLM head"
    if exported.tuned is not None:
        line += f"; {exported.tuned.task}, {exported.tuned.as_recorded}"
    return line


def _message(exported: ExportedModel) -> str:
    """Return the message of a commit."""
    result = exported.run.result
    return f"{result.arm}, seed {result.seed}, by kdjax"
