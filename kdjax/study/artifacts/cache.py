"""A study's stored teacher outputs: made once, or taken from where the recipe says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdjax.arms.charges import stored_features
from kdjax.arms.recipe_arms import arms_of
from kdjax.config import Config
from kdjax.data.corpus import Corpus
from kdjax.errors import InputError, counted
from kdjax.models import FeatureRequest, Model
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.storage import locks
from kdjax.storage.files import remove_on_input_error
from kdjax.storage.paths import local_path
from kdjax.study.artifacts.corpus import study_corpus
from kdjax.study.artifacts.input_checks import check_inputs
from kdjax.study.teachers.study_teachers import check_teacher, study_teachers
from kdjax.training.teacher_cache import fill
from kdjax.training.teacher_cache.manifest import CacheManifest, bias
from kdjax.training.teacher_cache.store import Cache


def study_cache(
    config: Config,
    request: FeatureRequest,
    teacher: Model,
    corpus: Corpus,
    directory: Path,
    layout: Layout,
    reporter: Reporter,
) -> Cache:
    """Open the stored outputs that the recipe names, or make them in `directory`.

    Args:
        config: resolved recipe, with `cache` and `data` settings.
        request: the outputs that its arms read.
        teacher: teacher whose outputs they are.
        corpus: prepared text of the study.
        directory: directory of outputs to be made.
        layout: layout of arrays on the devices.
        reporter: shows how the making goes on.

    Raises:
        InputError: the ones named are another teacher's, on other masks, or lack what is asked for.
    """

    def show(views: int, total: int) -> None:
        reporter.status(f"cache: {views:,} of {total:,} views of sequences")

    if config.cache.source:
        directory = local_path(config.cache.source, "cache.source")
    else:
        fill.fill_teacher_cache(
            directory, teacher, request, config.cache, config.data, corpus, layout, show
        )
    return fill.open_cache(directory, teacher, request, config.cache, config.data, corpus)


def prepare_cache(config: Config, out: Path) -> CacheManifest:
    """Store in `out` what the recipe's arms with `teacher: cached` ask for; print what it holds.

    Args:
        config: resolved recipe, with arms, text, teacher and `cache` settings.
        out: the directory, for `cache.source` of any recipe.

    Raises:
        InputError: no arm reads stored outputs, or those there are another teacher's, on other
            masks, or lack what is asked for.
    """
    request = stored_features(arms_of(config))
    if not request:
        raise InputError("no arm has teacher: cached, expected at least one, to know what to store")
    data_dir = out.with_name(f"{out.name}.data")
    teacher_dir = out.with_name(f"{out.name}.teacher")
    layout = Layout.from_config(config.train.mesh)
    with locks.hold(out), Reporter() as reporter, remove_on_input_error(out, data_dir, teacher_dir):
        check_teacher(config, layout)
        check_inputs(config, {"data": data_dir})
        corpus = study_corpus(config, data_dir, reporter)
        teachers = study_teachers(config, corpus, teacher_dir, layout, reporter)
        teacher = teachers[0].model  # the only one: `arms_of` refuses more
        own_cache = replace(config, cache=replace(config.cache, source=""))
        cache = study_cache(own_cache, request, teacher, corpus, out, layout, reporter)

        manifest = cache.manifest
        line = (
            f"{out}: {counted(manifest.views, 'view')} of "
            f"{counted(manifest.sequences, 'sequence')}, "
            f"{manifest.bytes:,} bytes, {manifest.totals['flops']:.4g} FLOPs"
        )
        for name, value in bias(manifest).items():
            line += f", {name.replace('_', ' ')} {value:.4g}"
        reporter.log(line)
        return manifest
