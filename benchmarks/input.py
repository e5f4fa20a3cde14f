"""Measure whether input and the host's work between steps ever hold a device up.

    python -m benchmarks.input                      all four, a few minutes on two idle cores
    python -m benchmarks.input --only preparation   one of them

Every ratio is of things measured in turn.

preparation: tokens a second of `kdjax prepare` on all cores, against the tokenizer library alone on
    the same text in memory (`encode_batch`, 1,000 documents a call). `a core`: by processor seconds
    of all processes, which say something on a busy machine, too.
loader: tokens a second that the loader delivers, against what a step of the larger pair (6 x 768
    student, 12 x 768 teacher) takes.
real: a step with batches from the loader, placed and counted, against the same step on batches that
    lie on the device.
host: what the training loop does besides computing: the same run with a step that sleeps, so that
    the loader keeps ahead as it does behind a real step. Processor seconds of the loop's own
    thread: ledger, records, event files and the progress line; then all, which is reading and
    placing batches, too. They are held against the demo's shortest step: `scratch`, 3 x 192, 8 x 64
    tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import runs
from benchmarks.cases import PAIRS, Case, Kdjax, Same, runner
from benchmarks.machine import describe
from benchmarks.prepare import TOKENIZER, write_corpus
from benchmarks.timing import in_turn, ratio
from kdjax.config import DataConfig
from kdjax.data.corpus import Corpus
from kdjax.data.loader import Batches
from kdjax.data.prepare.local import prepare
from kdjax.progress import Reporter
from kdjax.runtime import memory
from kdjax.text import sources
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.input_pipeline import HostSignals, step_inputs
from kdjax.training.phase import BatchShape
from kdjax.training.train import train

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
CLOCKS = {"by the clock": "wall", "by processor seconds": "processor"}
"""The seconds of `benchmarks.timing.Times` that a line is about."""


def preparation(directory: Path, options: argparse.Namespace) -> Iterator[str]:
    """Compare the preparation's tokens a second with the tokenizer library's."""
    text = directory / "text.jsonl"
    tokenizer = sources.locate(TOKENIZER)
    write_corpus(text, int(options.megabytes * 1e6), 8)

    # Each round has a process of both; which of them is first alternates.
    rates: dict[str, list[tuple[float, float]]] = {"alone": [], "ours": []}
    for number in range(options.rounds):
        for name in sorted(rates, reverse=bool(number % 2)):
            command = [sys.executable, "-m", "benchmarks.tokens", name, str(text), str(tokenizer)]
            if name == "ours":
                command.append(str(directory / f"out-{number}"))
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            tokens, clock, processors = printed.split()
            all_cores = float(tokens) / float(clock)
            one_core = float(tokens) / float(processors)
            rates[name].append((all_cores, one_core))

    for column, cores in enumerate(("all cores", "a core")):
        ours = [rate[column] for rate in rates["ours"]]
        alone = [rate[column] for rate in rates["alone"]]
        yield (
            f"{cores}: kdjax {statistics.median(ours):,.0f} tokens/s, "
            f"tokenizer alone {statistics.median(alone):,.0f}, ratio {ratio(ours, alone)}"
        )


def loader(directory: Path, options: argparse.Namespace) -> Iterator[str]:
    """Compare the tokens a second that the loader delivers with those that a step takes."""
    stream = runs.training_batches(corpus(directory, "large", LARGE), LARGE)
    step = runner(Case("logit", PAIRS["large"], LARGE))
    times = in_turn({"loader": Reading(stream), "step": step}, options.rounds, options.seconds)
    for label, clock in CLOCKS.items():
        loading = getattr(times["loader"], clock)
        computing = getattr(times["step"], clock)
        yield (
            f"{label}: {LARGE.tokens_per_step / statistics.median(loading):,.0f} tokens/s, a step "
            f"of logit takes {LARGE.tokens_per_step / statistics.median(computing):,.0f}, "
            f"ratio {ratio(computing, loading)}"
        )


def real(directory: Path, options: argparse.Namespace) -> Iterator[str]:
    """Compare a step with real input and the same step on batches that lie on the device."""
    for name, pair, shape in (("demo", "tiny", DEMO), ("large", "large", LARGE)):
        stream = runs.training_batches(corpus(directory / name, pair, shape), shape)
        case = Case("scratch", PAIRS[pair], shape)
        # Two programs of their own: each donates its state.
        runners = {"real": Reader(runner(case), stream), "placed": runner(case)}
        times = in_turn(runners, options.rounds, options.seconds)
        for label, clock in CLOCKS.items():
            with_input = getattr(times["real"], clock)
            without = getattr(times["placed"], clock)
            yield (
                f"{name}, {label}: {1e3 * statistics.median(with_input):.1f} ms with real input, "
                f"{1e3 * statistics.median(without):.1f} ms without, "
                f"ratio {ratio(with_input, without)}"
            )


def host(directory: Path, options: argparse.Namespace) -> Iterator[str]:
    """Compare what the training loop does besides computing with the demo's step."""
    stream = runs.training_batches(corpus(directory, "tiny", DEMO), DEMO)
    case = Case("scratch", PAIRS["tiny"], DEMO)
    step = runner(case)
    params = case.student_params
    take_all = jax.jit(lambda *arrays: jnp.zeros(()), keep_unused=True)
    # By what of the host's work a run includes: its batches, and its step.
    work: dict[str, tuple[Any, Any]] = {
        "ledger, records and progress": (
            Same(stream[0], DEMO.batch_size),
            SleepingProgram(step, lambda *arrays: None),
        ),
        "all": (stream, SleepingProgram(step, take_all)),
    }

    def thread_seconds(name: str, steps: int) -> float:
        """Return the processor seconds of the loop's thread in one run."""
        batches, program = work[name]
        phase = CompiledPhase(case.phase, program, case.price, batches)
        run_directory = Path(tempfile.mkdtemp(dir=directory))
        with Reporter() as reporter:
            before = time.thread_time()
            spec = runs.run_spec(
                phase,
                steps * case.price.total,
                params,
                run_directory,
                batch_size=DEMO.batch_size,
                watch=reporter.track("host"),
            )
            train(spec)
            return time.thread_time() - before

    thread_seconds("all", FEW)  # imports, first files
    seconds: dict[str, list[float]] = {name: [] for name in work}
    computing = []
    for _ in range(options.rounds):
        # Opening and closing a run is in both runs, and cancels.
        for name, per_step in seconds.items():
            difference = thread_seconds(name, MANY) - thread_seconds(name, FEW)
            per_step.append(difference / (MANY - FEW))
        computing.append(in_turn({"step": step}, 1, options.seconds)["step"].wall[-1])

    yield f"a step: {1e3 * statistics.median(computing):.1f} ms"
    for name, per_step in seconds.items():
        share = ratio(per_step, computing)
        yield (
            f"{name}: {1e3 * statistics.median(per_step):.3f} ms, "
            f"{share.median:.2%} [{share.low:.2%}, {share.high:.2%}] of it"
        )


PARTS: Mapping[str, Callable[[Path, argparse.Namespace], Iterator[str]]] = {
    "preparation": preparation,
    "loader": loader,
    "real": real,
    "host": host,
}


def corpus(directory: Path, pair: str, shape: BatchShape) -> Corpus:
    """Prepare a corpus of a few thousand sequences in the vocabulary of a pair of models."""
    directory.mkdir(exist_ok=True)
    text = directory / "text.jsonl"
    write_corpus(text, TEXT, 8)
    config = DataConfig(
        files=str(text),
        seq_len=shape.seq_len,
        max_predictions=shape.max_predictions,
        validation=0.05,
        workers=1,
    )
    tokenizer = DEMO_TOKENIZER if pair == "tiny" else sources.locate(TOKENIZER)
    prepare(config, tokenizer, directory / "data")
    return Corpus.open(directory / "data")


class Reading:
    """The loader, batch by batch."""

    def __init__(self, stream: Batches) -> None:
        self._batches = stream.iterate(0)

    def step(self) -> None:
        next(self._batches)

    def wait(self) -> None:
        """Return at once: nothing runs on."""


class Reader:
    """Steps on batches as the training loop gets them."""

    def __init__(self, kdjax: Kdjax, stream: Batches) -> None:
        self._kdjax = kdjax
        self._inputs = step_inputs(kdjax.program, stream, 0, lambda: HostSignals(False, 0))
        self.wait = kdjax.wait

    def step(self) -> None:
        self._kdjax.batches = [next(self._inputs).batch]
        self._kdjax.step()


class SleepingProgram:
    """A compiled step that sleeps instead of computing."""

    def __init__(self, kdjax: Kdjax, take: Callable[..., Any]) -> None:
        """Keep a step's program and the metrics of one step.

        Args:
            kdjax: the step that this one stands in for.
            take: called with the batch and the schedule's inputs at every step.
        """
        self._program = kdjax.program
        self._metrics = kdjax.step()
        self._take = take

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)

    def step(self, state: Any, _: Any, batch: Any, schedule_inputs: Any) -> tuple[Any, Any]:
        self._take(batch, jax.tree.map(np.float32, schedule_inputs))
        # A real step would leave the host as idle.
        time.sleep(SLEEP)
        return state, self._metrics


def main() -> None:
    """Print the lines of the parts that the command line names."""
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


if __name__ == "__main__":
    main()
