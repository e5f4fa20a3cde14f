"""A study's stored teacher outputs: made once, or taken from where the recipe says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdjax.config import Config
from kdjax.data.corpus import Corpus
from kdjax.dry_run.pricing import arms_of, stored_by
from kdjax.errors import InputError
from kdjax.files import undone_by_bad_input
from kdjax.models import FeatureRequest, Model
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.study.corpus import corpus_of
from kdjax.study.teacher import check_teacher, teachers_of
from kdjax.teacher_cache.manifest import CacheManifest, bias
from kdjax.teacher_cache.store import Cache
from kdjax.training import fill_teacher_cache as outputs


def cache_of(
    config: Config,
    request: FeatureRequest,
    teacher: Model,
    corpus: Corpus,
    directory: Path,
    layout: Layout,
    reporter: Reporter,
) -> Cache:
    """The teacher's stored outputs: those the recipe names, or made in `directory`.

    Raises:
        InputError: the ones named are another teacher's, on other masks, or lack what is asked for.
    """
    if config.cache.source:
        directory = Path(config.cache.source)
    else:

        def told(done: int, total: int) -> None:
            reporter.status(f"cache: {done:,} of {total:,} views of sequences")

        outputs.build(directory, teacher, request, config.cache, config.data, corpus, layout, told)
    return outputs.open_cache(directory, teacher, request, config.cache, config.data, corpus)


def prepare_cache(config: Config, out: Path) -> CacheManifest:
    """The `cache` command: the teacher's outputs in `out`, for `cache.source` of any recipe.

    They hold what the recipe's arms with `teacher: cached` ask for.

    Raises:
        InputError: no arm reads stored outputs; or as `cache_of`.
    """
    request = stored_by(arms_of(config))
    if not request:
        raise InputError("no arm has teacher: cached, expected at least one, to know what to store")
    data = out.with_name(f"{out.name}.data")
    fitted = out.with_name(f"{out.name}.teacher")
    layout = Layout.of(config.train.mesh)
    with Reporter() as reporter, undone_by_bad_input(out, data, fitted):
        check_teacher(config, layout)
        corpus = corpus_of(config, data, reporter)
        # `arms_of` refuses several
        (teacher,) = teachers_of(config, corpus, fitted, layout, reporter)
        manifest = cache_of(
            replace(config, cache=replace(config.cache, source="")),
            request,
            teacher.model,
            corpus,
            out,
            layout,
            reporter,
        ).manifest
        off = "".join(
            f", {name.replace('_', ' ')} {value:.4g}" for name, value in bias(manifest).items()
        )
        reporter.log(
            f"{out}: {manifest.views} views of {manifest.sequences:,} sequences, "
            f"{manifest.bytes:,} bytes, "
            f"{manifest.totals['flops']:.4g} FLOPs{off}"
        )
        return manifest
