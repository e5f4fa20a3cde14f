"""What a study needs before its first run: the prepared corpus and the teacher. Both are made once and kept."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from kdjax import models
from kdjax.budget.ledger import Ledger, lay_out
from kdjax.config import Config, ModelConfig, plain, to_dict
from kdjax.data import prepare, sources, vocabulary
from kdjax.data.cache import Cache, CacheManifest
from kdjax.data.loader import Batches, Corpus, fixed_batches
from kdjax.data.manifest import Manifest
from kdjax.errors import InputError
from kdjax.evaluate.mlm import held_out_loss
from kdjax.files import read_json, undone_by_bad_input, write_json
from kdjax.models import Model, Request, zoo
from kdjax.parallel.mesh import check_batch, make_mesh
from kdjax.study.pricing import arms_of, stored_by
from kdjax.study.progress import Reporter
from kdjax.train import cache as outputs
from kdjax.train.phase import Shape, price
from kdjax.train.teacher import fit_head, head_phase

CARD = "teacher.json"
"""Beside a fitted teacher's weights: what is known of it."""

HELD_OUT_SEED = 20240419
"""Seed of the masks held-out sequences have in every study."""


@dataclass(frozen=True)
class Teacher:
    """A teacher ready for use, and what is known of it.

    Attributes:
        model: configuration and parameters.
        facts: source, encoder, head_flops, mlm_loss, mlm_accuracy (None without a head), corpus digest.
    """

    model: Model
    facts: dict[str, Any]


def tokenizer_of(config: Config) -> Path:
    """The recipe's tokenizer file: its own, or the one beside the teacher's weights.

    Raises:
        InputError: there is none.
    """
    if config.data.tokenizer:
        return sources.locate(config.data.tokenizer)
    if not config.teacher.source:
        raise InputError("data.tokenizer is empty and there is no teacher, expected the path of a tokenizer.json")
    beside = sources.locate(config.teacher.source) / "tokenizer.json"
    if not beside.is_file():
        raise InputError(f"{beside}: no such file; name a tokenizer.json with data.tokenizer")
    return beside


def corpus_of(config: Config, directory: Path, reporter: Reporter) -> Corpus:
    """The prepared corpus: the one the recipe names, or one prepared in `directory`.

    Raises:
        InputError: unusable text, a tokenizer that does not fit the student, or a damaged directory.
    """
    if config.data.prepared:
        corpus = Corpus.open(Path(config.data.prepared))
    else:

        def told(documents: int, tokens: int, seconds: float) -> None:
            reporter.show(f"prepare: {documents:,} documents, {tokens:,} tokens, {tokens / seconds:,.0f} tokens/s")

        prepare.prepare(config.data, tokenizer_of(config), directory, told)
        corpus = Corpus.open(directory)
    manifest = corpus.manifest
    if manifest.length != config.data.length:
        raise InputError(
            f"{corpus.directory}: sequences of {manifest.length} tokens, expected data.length, {config.data.length}"
        )
    tokenizer = tokenizer_of(config)
    if manifest.tokenizer_sha256 != sources.sha256(tokenizer):
        raise InputError(f"{corpus.directory}: was prepared with another tokenizer, expected {tokenizer}")
    student = zoo.resolve(config.student)
    if manifest.vocab_size > student.vocab_size:
        raise InputError(
            f"{tokenizer}: has {manifest.vocab_size} entries, expected at most student.vocab_size, {student.vocab_size}"
        )
    return corpus


def encoder_of(config: Config) -> Model:
    """The teacher as it is given.

    Raises:
        InputError: a directory without usable weights, another architecture than the recipe's, another tokenizer than
            the corpus's.
    """
    if not config.teacher.source:
        raise InputError("teacher.source is empty, expected a Hugging Face BERT directory")
    source = sources.locate(config.teacher.source)
    encoder = models.from_pretrained(source)
    _check_architecture(source, encoder.config, zoo.resolve(config.teacher.architecture))
    vocabulary.check(tokenizer_of(config), source, encoder.config.vocab_size)
    return encoder


def check_teacher(config: Config, mesh: Mesh) -> None:
    """Finds what is wrong with a recipe's teacher before any time goes into a corpus.

    Raises:
        InputError: as `encoder_of`; or its head's batch or budget cannot be.
    """
    encoder, head = encoder_of(config), config.teacher.head
    if head.budget:
        check_batch(head.batch, mesh)
        shape = Shape(head.batch, config.data.length, config.data.slots)
        lay_out(int(head.budget), [(1.0, price(head_phase(encoder.config, head), shape))], 0, "teacher.head.budget")


def teacher_of(config: Config, corpus: Corpus, directory: Path, mesh: Mesh, reporter: Reporter) -> Teacher:
    """The teacher, with an MLM head fitted first where the recipe says so; a fitted one is kept in `directory`.

    Raises:
        InputError: a directory without usable weights, another architecture than the recipe's, another tokenizer than
            the corpus's.
    """
    source = sources.locate(config.teacher.source)
    identity = {"teacher": plain(to_dict(config.teacher)), "corpus": corpus.manifest.digest}
    if (directory / CARD).exists():
        facts = read_json(directory / CARD)
        if facts["identity"] != identity:
            raise InputError(
                f"{directory}: holds a teacher fitted with other settings or text, expected a new directory"
            )
        return Teacher(models.from_pretrained(directory), facts)
    encoder = encoder_of(config)
    facts = {
        **(read_json(source / CARD) if (source / CARD).exists() else {"head_flops": 0, "encoder": "as given"}),
        "source": config.teacher.source,
        "note": config.teacher.note,
        "architecture": asdict(encoder.config),
        "identity": identity,
    }
    if not config.teacher.head.budget:
        return Teacher(encoder, {**facts, **_quality(encoder, corpus, config)})
    model, ledger = _fit(config, encoder, corpus, directory.with_name(directory.name + ".fit"), mesh, reporter)
    facts |= {
        "encoder": config.teacher.head.encoder,
        "head_flops": facts["head_flops"] + ledger.total,
        "head_steps": ledger.steps,
        "head_tokens": ledger.tokens,
        **_quality(model, corpus, config),
    }
    models.save_pretrained(directory, model, tokenizer=tokenizer_of(config), card=card(facts, corpus))
    write_json(directory / CARD, facts)
    shutil.rmtree(directory.with_name(directory.name + ".fit"))
    return Teacher(model, facts)


def cache_of(
    config: Config,
    request: Request,
    teacher: Model,
    corpus: Corpus,
    directory: Path,
    mesh: Mesh,
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
            reporter.show(f"cache: {done:,} of {total:,} views of sequences")

        outputs.build(directory, teacher, request, config.cache, config.data, corpus, mesh, told)
    return outputs.open_cache(directory, teacher, request, config.cache, config.data, corpus)


def _fit(
    config: Config, encoder: Model, corpus: Corpus, directory: Path, mesh: Mesh, reporter: Reporter
) -> tuple[Model, Ledger]:
    head = config.teacher.head
    held_out = held_out_batches(config, corpus)
    return fit_head(
        encoder,
        head,
        Shape(head.batch, config.data.length, config.data.slots),
        train_batches(config, corpus, head.batch, seed=0),
        directory=directory,
        mesh=mesh,
        evaluate=lambda params: {"mlm_loss": held_out_loss(encoder.config, params, held_out).loss},
        watch=reporter.watch("teacher head"),
    )


def _quality(teacher: Model, corpus: Corpus, config: Config) -> dict[str, float | None]:
    """How well a teacher predicts masked tokens of held-out text; None without an MLM head."""
    if "mlm" not in teacher.params:
        return {"mlm_loss": None, "mlm_accuracy": None}
    result = held_out_loss(teacher.config, teacher.params, held_out_batches(config, corpus))
    return {"mlm_loss": result.loss, "mlm_accuracy": result.accuracy}


def card(facts: dict[str, Any], corpus: Corpus) -> str:
    """The model card of a fitted teacher: where it comes from, what it cost, how well it predicts."""
    manifest = corpus.manifest
    encoder = {
        "frozen": "The encoder is unchanged; only the head was trained.",
        "tuned": "Encoder and head were trained together.",
    }[facts["encoder"]]
    return f"""# Teacher: {facts["source"]} with an MLM head

{encoder}

| | |
|---|---|
| encoder | {facts["source"]} |
| spent on the head | {facts["head_flops"]:.4g} FLOPs, {facts["head_steps"]:,} steps, {facts["head_tokens"]:,} tokens |
| held-out MLM loss | {facts["mlm_loss"]:.4f} nats |
| held-out MLM accuracy | {facts["mlm_accuracy"]:.4f} |
| fitted on | the training split of corpus {manifest.digest[:16]} |

The FLOPs are XLA's count of the steps that fitted the head. What training the encoder cost is not in them.
"""


def train_batches(config: Config, corpus: Corpus, batch: int, seed: int, cache: Cache | None = None) -> Batches:
    """The training batches of a seed: the same order and masks for every arm, stored teacher outputs or not."""
    return Batches(
        corpus,
        "train",
        batch=batch,
        seed=seed,
        rate=config.data.mask_rate,
        slots=config.data.slots,
        views=config.data.views,
        cache=cache,
    )


def held_out_batches(config: Config, corpus: Corpus) -> list[dict[str, np.ndarray]]:
    """The held-out sequences with fixed masks: the same in every run."""
    return fixed_batches(
        corpus,
        "validation",
        batch=config.train.batch,
        limit=config.evaluation.mlm_sequences,
        seed=HELD_OUT_SEED,
        rate=config.data.mask_rate,
        slots=config.data.slots,
    )


def _check_architecture(source: Path, found: ModelConfig, expected: ModelConfig) -> None:
    for field in fields(ModelConfig):
        if field.name in ("dropout", "attention_dropout"):
            continue
        here, there = getattr(found, field.name), getattr(expected, field.name)
        if here != there:
            raise InputError(f"{source}: the model's {field.name} is {here}, expected teacher.architecture's {there}")


def prepare_corpus(config: Config, out: Path) -> Manifest:
    """The `prepare` command: a corpus in `out`, for `data.prepared` of any recipe."""
    with Reporter() as reporter:
        corpus = corpus_of(config, out, reporter)
        manifest = corpus.manifest
        reporter.say(
            f"{out}: {manifest.sequences['train']:,} training and {manifest.sequences['validation']:,} held-out "
            f"sequences of {manifest.length} tokens, {sum(manifest.text_tokens.values()):,} tokens of "
            f"{sum(manifest.documents.values()):,} documents, {manifest.fill['train']:.1%} full"
        )
        return manifest


def prepare_teacher(config: Config, out: Path) -> Teacher:
    """The `teacher` command: a teacher with a fitted MLM head in `out`, for `teacher.source` of any recipe.

    Raises:
        InputError: as `teacher_of`; or the recipe fits no head.
    """
    if not config.teacher.head.budget:
        raise InputError("teacher.head.budget is 0, expected the FLOPs to spend on the head")
    data, mesh = out.with_name(f"{out.name}.data"), make_mesh()
    with Reporter() as reporter, undone_by_bad_input(out, data, out.with_name(f"{out.name}.fit")):
        models.check_saveable(out)
        check_teacher(config, mesh)
        teacher = teacher_of(config, corpus_of(config, data, reporter), out, mesh, reporter)
        facts = teacher.facts
        reporter.say(
            f"{out}: held-out MLM loss {facts['mlm_loss']:.3f}, accuracy {facts['mlm_accuracy']:.1%}, "
            f"for {facts['head_flops']:.4g} FLOPs"
        )
        return teacher


def prepare_cache(config: Config, out: Path) -> CacheManifest:
    """The `cache` command: the teacher's outputs in `out`, for `cache.source` of any recipe.

    They hold what the recipe's arms with `teacher: cached` ask for.

    Raises:
        InputError: no arm reads stored outputs; or as `cache_of`.
    """
    request = stored_by(arms_of(config))
    if not request:
        raise InputError("no arm has teacher: cached, expected at least one, to know what to store")
    data, fitted, mesh = out.with_name(f"{out.name}.data"), out.with_name(f"{out.name}.teacher"), make_mesh()
    with Reporter() as reporter, undone_by_bad_input(out, data, fitted):
        check_teacher(config, mesh)
        corpus = corpus_of(config, data, reporter)
        teacher = teacher_of(config, corpus, fitted, mesh, reporter)
        manifest = cache_of(
            replace(config, cache=replace(config.cache, source="")),
            request,
            teacher.model,
            corpus,
            out,
            mesh,
            reporter,
        ).manifest
        off = "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in outputs.bias(manifest).items())
        reporter.say(
            f"{out}: {manifest.views} views of {manifest.sequences:,} sequences, {manifest.bytes:,} bytes, "
            f"{manifest.totals['flops']:.4g} FLOPs{off}"
        )
        return manifest
