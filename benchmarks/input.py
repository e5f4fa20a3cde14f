"""Whether input and the host's work between steps ever hold a device up. Every ratio is of things
measured in turn.

    python -m benchmarks.input                      all four, a few minutes on two cores that do
    nothing else python -m benchmarks.input --only preparation   one of them

preparation: tokens a second of `kdjax prepare` on all cores, against the tokenizer library alone on
    the same text in
memory (`encode_batch`, 1,000 documents a call). `a core`: by processor seconds of all processes,
which say something on a busy machine, too.
loader: tokens a second that the loader delivers, against what a step of the larger pair (6 x 768
student, 12 x 768 teacher) takes.
real: a step with batches from the loader, placed and counted, against the same step on batches that
    lie on the device.
host: what the training loop does besides computing: the same run with a step that sleeps, so that
the loader keeps ahead as it does behind a real step. Processor seconds of the loop's own thread:
ledger, records, event files and the progress line; then all, which is reading and placing batches,
too. They are held against the demo's shortest step: `scratch`, 3 x 192, 8 x 64 tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import PAIRS, Case, Kdjax, Same, batch, start
from benchmarks.machine import describe
from benchmarks.prepare import TOKENIZER, write_corpus
from benchmarks.timing import Ratio, in_turn, ratio
from kdjax import memory
from kdjax.budget.accounting import Budget
from kdjax.config import DataConfig, TrainConfig
from kdjax.data.corpus import Corpus
from kdjax.data.loader import Batches
from kdjax.data.prepare.local import prepare
from kdjax.data.text import sources
from kdjax.progress import Reporter
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.input_pipeline import HostSignals, StepInput, step_inputs
from kdjax.training.phase import BatchShape
from kdjax.training.train import train
from kdjax.training.trainer import Trainer

DEMO = BatchShape(batch_size=32, seq_len=32, max_predictions=6)
LARGE = BatchShape(batch_size=8, seq_len=128, max_predictions=20)
DEMO_TOKENIZER = Path(__file__).parents[1] / "configs" / "demo-teacher" / "tokenizer.json"
TEXT = 4_000_000
"""Bytes of text that batches are read from."""
FEW = 100
MANY = 1100
"""Steps of the runs whose difference is the steps' own."""
SLEEP = 0.005
"""Seconds of a step that computes nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=list(PARTS), action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=100, help="of text to prepare")
    parser.add_argument("--seconds", type=float, default=2, help="of a block of steps or batches")
    parser.add_argument("--directory", type=Path, help="for temporary files")
    options = parser.parse_args()
    memory.configure_malloc()  # as kdjax's commands do
    print(json.dumps(describe(), indent=1))
    for name in options.only or PARTS:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            print(f"\n{name}", flush=True)
            for line in PARTS[name](Path(directory), options):
                print(f"  {line}", flush=True)


def preparation(here: Path, options: argparse.Namespace) -> Iterator[str]:
    text = here / "text.jsonl"
    tokenizer = sources.locate(TOKENIZER)
    write_corpus(text, int(options.megabytes * 1e6), 8)
    rates: dict[str, list[tuple[float, float]]] = {"alone": [], "ours": []}
    for n in range(options.rounds):
        for which in sorted(rates, reverse=bool(n % 2)):
            out = [str(here / f"out-{n}")] if which == "ours" else []
            command = [
                sys.executable,
                "-m",
                "benchmarks.tokens",
                which,
                str(text),
                str(tokenizer),
                *out,
            ]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            tokens, clock, processors = map(float, found.split())
            rates[which].append((tokens / clock, tokens / processors))
    for kind, what in enumerate(("all cores", "a core")):
        each = {name: [rate[kind] for rate in found] for name, found in rates.items()}
        middle = {name: statistics.median(found) for name, found in each.items()}
        yield (
            f"{what}: kdjax {middle['ours']:,.0f} tokens/s, tokenizer alone "
            f"{middle['alone']:,.0f}, "
            f"ratio {ratio(each['ours'], each['alone'])}"
        )


def loader(here: Path, options: argparse.Namespace) -> Iterator[str]:
    stream = Batches(
        corpus(here, "large", LARGE),
        "train",
        batch_size=LARGE.batch_size,
        seed=0,
        mlm_probability=0.15,
        max_predictions=LARGE.max_predictions,
    )
    step = Kdjax(
        Case("logit", PAIRS["large"], LARGE), *parameters("large"), batches("large", LARGE)
    )
    times = in_turn({"loader": Reading(stream), "step": step}, options.rounds, options.seconds)
    for kind, found in (
        ("by the clock", lambda t: t.wall),
        ("by processor seconds", lambda t: t.processor),
    ):
        rates = {
            name: LARGE.tokens_per_step / statistics.median(found(taken))
            for name, taken in times.items()
        }
        yield (
            f"{kind}: {rates['loader']:,.0f} tokens/s, a step of logit takes {rates['step']:,.0f}, "
            f"ratio {ratio(found(times['step']), found(times['loader']))}"
        )


def real(here: Path, options: argparse.Namespace) -> Iterator[str]:
    for name, pair, shape, arm in (
        ("demo", "tiny", DEMO, "scratch"),
        ("large", "large", LARGE, "scratch"),
    ):
        stream = Batches(
            corpus(here / name, pair, shape),
            "train",
            batch_size=shape.batch_size,
            seed=0,
            mlm_probability=0.15,
            max_predictions=shape.max_predictions,
        )
        made = [
            Kdjax(Case(arm, PAIRS[pair], shape), *parameters(pair), batches(pair, shape))
            for _ in range(2)
        ]
        times = in_turn(
            {"real": Fedding(made[0], stream), "lying": made[1]}, options.rounds, options.seconds
        )
        for kind, found in (
            ("by the clock", lambda t: t.wall),
            ("by processor seconds", lambda t: t.processor),
        ):
            middle = {one: 1e3 * statistics.median(found(taken)) for one, taken in times.items()}
            yield (
                f"{name}, {kind}: {middle['real']:.1f} ms with real input, {middle['lying']:.1f} "
                "ms without, "
                f"ratio {ratio(found(times['real']), found(times['lying']))}"
            )


def host(here: Path, options: argparse.Namespace) -> Iterator[str]:
    stream = Batches(
        corpus(here, "tiny", DEMO),
        "train",
        batch_size=DEMO.batch_size,
        seed=0,
        mlm_probability=0.15,
        max_predictions=DEMO.max_predictions,
    )
    case = Case("scratch", PAIRS["tiny"], DEMO)
    params, teacher = parameters("tiny")
    step = Kdjax(case, params, teacher, batches("tiny", DEMO))
    ways = {
        "ledger, records and progress": (
            Same(stream[0], DEMO.batch_size),
            Still(step, takes=False),
        ),
        "all": (stream, Still(step)),
    }
    numbers = iter(range(10**6))

    def a_run(way: str, steps: int) -> float:
        """Processor seconds of the loop's thread."""
        read, still = ways[way]
        with Reporter() as reporter:
            before = time.thread_time()
            train(
                Trainer(
                    [CompiledPhase(case.phase, still, case.price, read)],  # type: ignore[arg-type]
                    Budget.flops(steps * case.price.total),
                    start=params,
                    seed=0,
                    config=TrainConfig(batch_size=DEMO.batch_size, evaluations=1),
                    directory=here / str(next(numbers)),
                    watch=reporter.track("host"),
                )
            )
            return time.thread_time() - before

    few = FEW
    many = MANY
    a_run("all", few)
    taken: dict[str, list[float]] = {way: [] for way in ways}
    steps = []
    for _ in range(options.rounds):
        for way, found in taken.items():  # opening and closing a run is in both
            found.append((a_run(way, many) - a_run(way, few)) / (many - few))
        steps.append(in_turn({"step": step}, 1, options.seconds)["step"].wall[-1])
    yield f"a step: {1e3 * statistics.median(steps):.1f} ms"
    for way, found in taken.items():
        yield f"{way}: {1e3 * statistics.median(found):.3f} ms, {share(ratio(found, steps))} of it"


PARTS: Mapping[str, Callable[[Path, argparse.Namespace], Iterator[str]]] = {
    "preparation": preparation,
    "loader": loader,
    "real": real,
    "host": host,
}


def share(found: Ratio) -> str:
    return f"{found.median:.2%} [{found.low:.2%}, {found.high:.2%}]"


def corpus(here: Path, pair: str, shape: BatchShape) -> Corpus:
    """Prepare a corpus of a few thousand sequences in the vocabulary of a pair of models."""
    here.mkdir(exist_ok=True)
    write_corpus(here / "text.jsonl", TEXT, 8)
    config = DataConfig(
        files=str(here / "text.jsonl"),
        seq_len=shape.seq_len,
        max_predictions=shape.max_predictions,
        validation=0.05,
        workers=1,
    )
    tokenizer = DEMO_TOKENIZER if pair == "tiny" else sources.locate(TOKENIZER)
    prepare(config, tokenizer, here / "data")
    return Corpus.open(here / "data")


def parameters(pair: str) -> tuple[Any, Any]:
    return start(PAIRS[pair].student, 0), start(PAIRS[pair].teacher, 1)


def batches(pair: str, shape: BatchShape) -> Sequence[Any]:
    return [batch(shape, PAIRS[pair].student.vocab_size, seed) for seed in range(2)]


class Reading:
    """The loader, batch by batch."""

    def __init__(self, stream: Batches) -> None:
        self._batches = stream.iterate(0)

    def step(self) -> None:
        next(self._batches)

    def wait(self) -> None:
        """Nothing runs on."""


class Fedding:
    """Steps on batches as the training loop gets them."""

    def __init__(self, kdjax: Kdjax, stream: Batches) -> None:
        self._kdjax = kdjax
        self._fed: Iterator[StepInput] = step_inputs(
            kdjax.program, stream, 0, lambda: HostSignals(False, 0)
        )

    def step(self) -> None:
        self._kdjax.batches = [next(self._fed).batch]
        self._kdjax.step()

    def wait(self) -> None:
        self._kdjax.wait()


class Still:
    """A compiled step that takes its batch and moment, or not even these, and then sleeps."""

    def __init__(self, made: Kdjax, takes: bool = True) -> None:
        self._program = made.program
        self._metrics = made.step()
        self._take = (
            jax.jit(lambda *taken: jnp.zeros(()), keep_unused=True)
            if takes
            else lambda *taken: None
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)

    def step(self, state: Any, _: Any, batch: Any, schedule_inputs: Any) -> tuple[Any, Any]:
        self._take(batch, jax.tree.map(np.float32, schedule_inputs))
        time.sleep(SLEEP)
        return state, self._metrics


if __name__ == "__main__":
    main()
