"""All teachers of a study: trained here for each seed, several that are read, or a single one."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from kdjax import models
from kdjax.arms.teacher_cost import fit_flops
from kdjax.config import Config
from kdjax.data.corpus import Corpus
from kdjax.errors import InputError
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.storage import hub
from kdjax.storage.files import entries, remove_on_input_error
from kdjax.study.artifacts.commits import pin_commits
from kdjax.study.artifacts.corpus import study_corpus
from kdjax.study.artifacts.input_checks import check_inputs
from kdjax.study.teachers.from_directory import (
    Teacher,
    check_shape,
    read_as_is,
    read_checked,
    single_teacher,
)
from kdjax.study.teachers.trained import check_trained_teacher, trained_teacher
from kdjax.study.writer import sole_writer
from kdjax.training.teacher.directories import CARD, TeacherDirectory, source_directories


def check_teacher_shape(config: Config) -> None:
    """Check a recipe's teacher by its config.json alone, which takes no time.

    Weights, tokenizer and what is on the Hugging Face Hub are `check_teacher`'s.

    Raises:
        InputError: a directory without a model, or another architecture than the recipe's.
    """
    if config.teacher.train.budget or hub.is_hub_name(config.teacher.source):
        return
    for directory in source_directories(config):
        check_shape(config, directory.path)


def check_teacher(config: Config, layout: Layout) -> None:
    """Check a recipe's teacher before any time goes into a corpus.

    Raises:
        InputError: a directory without usable weights, another architecture than the recipe's, or a
            batch or budget of its head or its training that cannot be.
    """
    if config.teacher.train.budget:
        check_trained_teacher(config, layout)
        return
    # Read now, and again when the corpus is there: what is wrong shows hours earlier.
    for directory in source_directories(config):
        read_checked(config, directory.path)
    if config.teacher.head.budget:
        layout.check_batch(config.teacher.head.batch_size)
        fit_flops(config)


def study_teachers(
    config: Config, corpus: Corpus, directory: Path, layout: Layout, reporter: Reporter
) -> tuple[Teacher, ...]:
    """Train or read the recipe's teachers, in ascending order of their seeds.

    Args:
        config: resolved recipe, with `teacher` and `evaluation` settings.
        corpus: prepared text that teachers are trained and measured on.
        directory: directory of teachers that are made here.
        layout: layout of arrays on the devices.
        reporter: receiver of reports on progress.

    Raises:
        InputError: a teacher cannot be used or does not fit the recipe, its training fails, or the
            cards of several teachers say that they cost different amounts.
    """
    if config.teacher.train.budget:
        if (directory / "config.json").exists():
            raise InputError(
                f"{directory}: holds a single model, expected a new directory for the seeds of "
                "teacher.train"
            )
        teachers = []
        for seed in sorted(config.teacher.train.seeds):
            teachers.append(trained_teacher(config, corpus, directory, seed, layout, reporter))
        return tuple(teachers)
    directories = source_directories(config)
    if directories[0].seed is None:
        # Nothing is written where the teacher is read as it is.
        writer = sole_writer(directory) if config.teacher.head.budget else nullcontext()
        with writer:
            return (single_teacher(config, corpus, directory, layout, reporter),)
    # All arms of a seed pay for its teacher, so teachers have to cost the same.
    teachers = [_teacher_of_seed(config, corpus, place) for place in directories]
    if len({teacher.cost for teacher in teachers}) > 1:
        spent = ", ".join(f"{teacher.cost.training:.6g}" for teacher in teachers)
        raise InputError(
            f"{config.teacher.source}: the teachers of its seeds cost {spent} FLOPs, expected the "
            "same for all"
        )
    return tuple(teachers)


def _teacher_of_seed(config: Config, corpus: Corpus, directory: TeacherDirectory) -> Teacher:
    """Read one of several teachers, and check that its card is of the directory's seed."""
    teacher = read_as_is(config, corpus, directory.path, str(directory.path))
    if teacher.seed != directory.seed:
        raise InputError(
            f"{directory.path / CARD}: the teacher's seed is {teacher.seed}, expected "
            f"{directory.seed}, as `kdjax teacher` writes it"
        )
    return teacher


def prepare_teacher(config: Config, out: Path) -> tuple[Teacher, ...]:
    """Make the recipe's teachers in `out`; print how good each is and what it cost.

    Either an encoder with a fitted MLM head, a Hugging Face directory, or one that is trained from
    scratch for each of `teacher.train.seeds`, in `seedJ/at-SHARE/`.

    Args:
        config: resolved recipe, with text, `teacher` and `evaluation` settings.
        out: the directory, for `teacher.source` of any recipe.

    Raises:
        InputError: a teacher cannot be used or does not fit the recipe, or the recipe neither fits
            a head nor trains a teacher.
    """
    trains = bool(config.teacher.train.budget)
    if not trains and not config.teacher.head.budget:
        raise InputError(
            "teacher.head.budget and teacher.train.budget are 0, expected the FLOPs to spend on "
            "one of them"
        )
    data_dir = out.with_name(f"{out.name}.data")
    fit_dir = out.with_name(f"{out.name}.fit")
    layout = Layout.from_config(config.train.mesh)
    removal = remove_on_input_error(out, data_dir, fit_dir, unless=f"**/seed*/at-*/{CARD}")
    with sole_writer(out), Reporter() as reporter, removal:
        # What is made of a branch says of which commit it is.
        config, _ = pin_commits(config, {})
        # An output directory that cannot be is refused before a corpus is prepared.
        if trains:
            _check_only_seeds(out)
        else:
            models.check_saveable(out)
        check_teacher(config, layout)
        check_inputs(config, {"data": data_dir})
        corpus = study_corpus(config, data_dir, reporter)
        teachers = study_teachers(config, corpus, out, layout, reporter)
        for teacher in teachers:
            name = str(out)
            spent = teacher.cost.tuning + teacher.cost.head
            if trains:
                name += f", seed {teacher.seed}, at {config.teacher.at:g}"
                spent = teacher.cost.training
            reporter.log(
                f"{name}: held-out MLM loss {teacher.facts['mlm_loss']:.3f}, accuracy "
                f"{teacher.facts['mlm_accuracy']:.1%}, for {spent:.4g} FLOPs"
            )
        return teachers


def _check_only_seeds(out: Path) -> None:
    """Check that a directory for trained teachers holds nothing but seeds' directories.

    Raises:
        InputError: it holds something else.
    """
    strange_names = [path.name for path in entries(out) if not path.name.startswith("seed")]
    if strange_names:
        raise InputError(
            f"{out}: holds {min(strange_names)}, expected a new directory, or one of trained "
            "teachers"
        )
