"""A study's text: the prepared corpus with its tokenizer, and held-out text from elsewhere."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from kdjax.config import Config, DataConfig, TokenizerConfig, plain
from kdjax.config.data import LATER_SETTINGS
from kdjax.data.corpus import Corpus, apply_regime
from kdjax.data.manifest import NAME as MANIFEST
from kdjax.data.manifest import Manifest
from kdjax.data.prepare import local
from kdjax.data.prepare.ngram_losses import NgramLosses, ngram_losses
from kdjax.data.prepare.preparation import TOKENIZER
from kdjax.data.text_figures import check_unknown, unknown_warning
from kdjax.errors import InputError, InUse, counted
from kdjax.models import zoo
from kdjax.progress import Reporter
from kdjax.storage import locks
from kdjax.storage.paths import local_path
from kdjax.study.artifacts.contamination import study_contamination
from kdjax.text.shard_sets import missing_shards
from kdjax.text.sources import patterns_of
from kdjax.text.streams import import_optional, sha256
from kdjax.tokenizers.tokenizer_files import find_tokenizer, locate_tokenizer
from kdjax.training.teacher.directories import source_directories


def trains_tokenizer(config: Config) -> bool:
    """Return whether the recipe trains a tokenizer on its own text."""
    return isinstance(config.data.tokenizer, TokenizerConfig)


def tokenizer_of(config: Config, corpus: Corpus | None = None) -> Path:
    """Return the recipe's tokenizer file: its own, or the one beside the teacher's weights.

    Args:
        config: resolved recipe, with `data.tokenizer` and `teacher.source`.
        corpus: text with the tokenizer that was trained on it; None where the recipe trains none.

    Raises:
        InputError: neither is there.
    """
    if isinstance(config.data.tokenizer, TokenizerConfig):
        if corpus is None:
            raise ValueError("the tokenizer is trained on the corpus, expected the prepared corpus")
        path = corpus.directory / TOKENIZER
        if not path.is_file():
            raise InputError(
                f"{path}: no such file, expected the tokenizer that was trained on this text"
            )
        return path
    # One that is named goes before the teacher's.
    if config.data.tokenizer:
        return locate_tokenizer(config.data.tokenizer)
    if not config.teacher.source:
        raise InputError(
            "data.tokenizer is empty and there is no teacher.source, expected the path of a "
            "tokenizer.json"
        )
    directory = source_directories(config)[0].path
    path = find_tokenizer(directory) if directory.is_dir() else directory / TOKENIZER
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a tokenizer.json with data.tokenizer")
    return path


def study_corpus(
    config: Config, directory: Path, reporter: Reporter, beam: Sequence[str] | None = None
) -> Corpus:
    """Open the corpus that the recipe names, or prepare one in `directory`; check it.

    Args:
        config: resolved recipe, with `data` settings and the models that read the text.
        directory: directory of a corpus to be prepared.
        reporter: shows how the preparation goes on.
        beam: options of Apache Beam, where it shall prepare.

    Raises:
        InputError: unusable text, a tokenizer that does not fit the student, or a damaged
            directory.
    """
    # A corpus that is named is read as it is; one of the study is prepared, or found prepared.
    if config.data.prepared:
        directory = local_path(config.data.prepared, "data.prepared")
    else:
        _prepare(config, directory, reporter, beam)
    corpus = Corpus.open(directory)
    _check_corpus(config, corpus)
    if config.data.prepared:
        for warning in differences_from_prepared(config.data, corpus.manifest):
            reporter.warn(f"{corpus.directory}: {warning}")

    # Counts take a while: what is useless is refused before, but for corpora of earlier versions.
    check_unknown(corpus.manifest.unknown, str(corpus.directory))
    whole = corpus
    # From here on the text is what the regime leaves of it.
    corpus = apply_regime(config.data, corpus)
    reporter.stage("prepare: the text's own cross-entropies")
    losses = ngram_losses(corpus)
    check_unknown(unknown_shares(whole, losses), str(whole.directory))
    for warning in text_warnings(whole, losses):
        reporter.warn(f"{whole.directory}: {warning}")
    return corpus


def unknown_shares(corpus: Corpus, losses: NgramLosses) -> dict[str, float]:
    """Return the share of [UNK] by split: of all of the text, or of what was counted of it.

    Args:
        corpus: the text.
        losses: its own cross-entropies, which know the share in a sample of the text: all that is
            known of a corpus of an earlier version.
    """
    return corpus.manifest.unknown or losses.unknown


def text_warnings(corpus: Corpus, losses: NgramLosses) -> list[str]:
    """Return a sentence for all that makes a text doubtful.

    Args:
        corpus: the text.
        losses: its own cross-entropies.
    """
    warnings = manifest_warnings(corpus.manifest)
    # A corpus of an earlier version has the counts of a sample alone.
    if corpus.manifest.text is None and (warning := unknown_warning(losses.unknown)):
        warnings.append(warning)
    return warnings


def manifest_warnings(manifest: Manifest) -> list[str]:
    """Return a sentence for all that a manifest knows to make its text doubtful."""
    warnings = list(missing_shards(manifest.sources))
    if manifest.text is None:
        return warnings
    warnings += manifest.text.warnings(sum(manifest.documents.values()))
    if warning := unknown_warning(manifest.unknown):
        warnings.append(warning)
    if manifest.teacher is not None:
        warnings += manifest.teacher.warnings()
    return warnings


def _prepare(
    config: Config, directory: Path, reporter: Reporter, beam: Sequence[str] | None
) -> None:
    """Prepare a corpus in a directory, or find it prepared."""
    tokenizer = None if trains_tokenizer(config) else tokenizer_of(config)
    if beam is not None:
        import_optional("apache_beam", "beam", "--beam")
        from kdjax.data.prepare.beam import prepare  # noqa: PLC0415 - an extra

        prepare(config.data, tokenizer, directory, beam)
        return

    if not (directory / MANIFEST).is_file():
        words = "prepare: training the tokenizer, then the text" if tokenizer is None else "prepare"
        reporter.stage(f"{words}: reading {_shown(config.data.files)}")

    def show(documents: int, tokens: int, seconds: float) -> None:
        reporter.status(
            f"prepare: {counted(documents, 'document')}, {counted(tokens, 'token')}, "
            f"{tokens / seconds:,.0f} tokens/s"
        )

    local.prepare(config.data, tokenizer, directory, show)


def _shown(files: str | tuple[str, ...]) -> str:
    """Return files as a line names them."""
    patterns = patterns_of(files)
    shown = ", ".join(patterns[:2])
    if len(patterns) > 2:
        return f"{shown} and {len(patterns) - 2:,} more"
    return shown


def _check_corpus(config: Config, corpus: Corpus) -> None:
    """Check that a prepared corpus is what the recipe asks for.

    Raises:
        InputError: its sequences have another length, its tokenizer is another or was trained in
            another way, or is larger than the student's vocabulary; or masks shall be of words and
            it does not say where these begin.
    """
    manifest = corpus.manifest
    if manifest.length != config.data.seq_len:
        raise InputError(
            f"{corpus.directory}: sequences of {manifest.length} tokens, expected data.seq_len, "
            f"{config.data.seq_len}"
        )
    _check_tokenizer_training(config, corpus)
    tokenizer = tokenizer_of(config, corpus)
    if manifest.tokenizer_sha256 != sha256(tokenizer):
        raise InputError(
            f"{corpus.directory}: was prepared with another tokenizer, expected {tokenizer}"
        )
    _check_teacher_tokens(config, corpus)
    # Masks of words need to know where these begin: read now, before a step is spent.
    if config.data.masking.unit != "token":
        _ = corpus.word_boundaries
    # A student may have rows that no token has, not the other way round.
    student = zoo.resolve(config.student)
    if manifest.vocab_size > student.vocab_size:
        raise InputError(
            f"{tokenizer}: has {manifest.vocab_size:,} entries, expected at most "
            f"student.vocab_size, {student.vocab_size:,}"
        )


def _check_teacher_tokens(config: Config, corpus: Corpus) -> None:
    """Check that a corpus has the tokens of a teacher that does not read the student's.

    A corpus that has them serves a recipe that does not ask for them, too.

    Raises:
        InputError: it has none, or those of another tokenizer, or sequences of another length.
    """
    if not config.data.teacher_tokenizer:
        return
    teacher = corpus.manifest.teacher
    tokenizer = locate_tokenizer(config.data.teacher_tokenizer)
    if teacher is None or teacher.tokenizer_sha256 != sha256(tokenizer):
        prepared_with = "another teacher_tokenizer" if teacher else "no data.teacher_tokenizer"
        raise InputError(
            f"{corpus.directory}: was prepared with {prepared_with}, expected {tokenizer}"
        )
    if teacher.length != config.data.own_seq_len:
        raise InputError(
            f"{corpus.directory}: sequences of {teacher.length} tokens of the teacher, expected "
            f"data.teacher_seq_len, {config.data.own_seq_len}"
        )


def differences_from_prepared(data: DataConfig, manifest: Manifest) -> list[str]:
    """Return a sentence for each setting of the text by which a named corpus was not prepared.

    What is prepared counts; these settings are passed over. Files are compared by their names,
    since a corpus is often prepared on another machine.

    Args:
        data: the recipe's settings, with `prepared`.
        manifest: manifest of the corpus that it names.
    """
    sentences = []
    # Settings that came later stand in a manifest where they are not the default.
    made_with = {**LATER_SETTINGS, **manifest.settings}
    for name in ("validation", "text_field", *LATER_SETTINGS):
        named = plain(getattr(data, name))
        if name == "text_field" and isinstance(named, str):
            named = [named]
        if named != made_with[name]:
            sentences.append(_other_setting(f"data.{name}", named, made_with[name]))

    sources = [Path(source).name for source in manifest.sources]
    for pattern in patterns_of(data.files):
        if not fnmatch.filter(sources, Path(pattern).name):
            shown = ", ".join(sources[:3])
            if len(sources) > 3:
                shown += f" and {len(sources) - 3:,} more"
            sentences.append(_other_setting("data.files", pattern, shown))
    return sentences


def _other_setting(name: str, in_recipe: object, made_with: object) -> str:
    """Return the sentence on a setting by which a named corpus was not prepared, and what to do."""
    return (
        f"{name} is {made_with!r}, as this corpus was prepared; the recipe's {in_recipe!r} has no "
        "effect here. To have it, prepare a corpus of its own: `kdjax prepare`, or no "
        "data.prepared; to be rid of this line, set the recipe's to the former"
    )


def _check_tokenizer_training(config: Config, corpus: Corpus) -> None:
    """Check that a corpus was made with the tokenizer that the recipe trains, if it trains one.

    Raises:
        InputError: it was made with a tokenizer from a file, or trained in another way.
    """
    if not isinstance(config.data.tokenizer, TokenizerConfig):
        return
    expected = asdict(config.data.tokenizer)
    settings = corpus.manifest.settings.get("tokenizer")
    if settings == expected:
        return
    tokenizer = f"a tokenizer trained by {settings}" if settings else "a tokenizer that was given"
    raise InputError(
        f"{corpus.directory}: was prepared with {tokenizer}, expected data.tokenizer {expected}"
    )


def refuse_repeated_text(config: Config, corpus: Corpus, setting_name: str, sequences: int) -> None:
    """Refuse a run that would read text twice where the regime is unlimited.

    Args:
        config: resolved recipe, with `data.regime`.
        corpus: prepared text that the run reads.
        setting_name: setting that the run comes from, for messages, such as `arms.minilm`.
        sequences: number of sequences that the run reads.

    Raises:
        InputError: text would repeat where it is to be unlimited.
    """
    if config.data.regime == "unlimited" and (missing := corpus.missing_tokens(sequences)):
        raise InputError(
            f"{setting_name}: its budget reads {sequences:,} sequences, {corpus.directory} has "
            f"{corpus.sequences('train'):,}, expected no repeats under data.regime 'unlimited': "
            f"about {missing:,} tokens are missing; add text, lower the budget or set another "
            "regime"
        )


def held_out_text(
    config: Config, corpus: Corpus, name: str, directory: Path, reporter: Reporter
) -> Corpus:
    """Prepare a text of `evaluation.texts`, all of it held out, or find it prepared.

    Args:
        config: resolved recipe, with `data` settings and `evaluation.texts`.
        corpus: the study's text, which holds the tokenizer where it was trained on it.
        name: name of the text.
        directory: directory of the prepared text.
        reporter: takes warnings of doubtful text.

    Raises:
        InputError: unusable text, or a damaged directory.
    """
    tokenizer = tokenizer_of(config, corpus)
    # Students alone are measured on it.
    data = replace(
        config.data,
        files=config.evaluation.texts[name],
        tokenizer=str(tokenizer),
        teacher_tokenizer="",
        teacher_seq_len=0,
    )
    try:
        manifest = local.prepare(data, tokenizer, directory, held_out=True)
        text = Corpus.open(directory)
    except InUse:
        raise
    except InputError as e:
        raise InputError(f"evaluation.texts.{name}: {e}") from None
    for warning in manifest_warnings(manifest):
        reporter.warn(f"evaluation.texts.{name}: {warning}")
    return text


def prepare_corpus(config: Config, out: Path, beam: Sequence[str] | None = None) -> Manifest:
    """Prepare a corpus in `out`, for `data.prepared` of any recipe; print what it holds.

    Args:
        config: resolved recipe, with `data` settings and the models that read the text.
        out: directory that the corpus is written to.
        beam: options of Apache Beam, where it shall prepare.

    Raises:
        InputError: unusable text, a tokenizer that does not fit the student, or a damaged
            directory.
    """
    with locks.hold(out), Reporter() as reporter:
        corpus = study_corpus(config, out, reporter, beam)
        manifest = corpus.manifest
        reporter.log(
            f"{out}: {manifest.sequences['train']:,} training and "
            f"{counted(manifest.sequences['validation'], 'held-out sequence')} of "
            f"{manifest.length:,} tokens, {counted(sum(manifest.text_tokens.values()), 'token')} "
            f"of {counted(sum(manifest.documents.values()), 'document')}, "
            f"{manifest.fill['train']:.1%} full"
        )
        if manifest.teacher is not None:
            reporter.log(f"{out}: by data.teacher_tokenizer {manifest.teacher.in_words()}")
        losses = ngram_losses(corpus)
        unknown = unknown_shares(corpus, losses)
        rates = ""
        if manifest.text is not None:
            rates = manifest.text.rates_in_words(manifest.text_tokens)
        reporter.log(
            f"{out}: nats a token by counts: {losses.in_words(3)}; {unknown['train']:.3%} of the "
            f"tokens are [UNK]{rates}"
        )
        study_contamination(config, corpus, reporter)
        return manifest
