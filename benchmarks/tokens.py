"""Time `kdjax prepare`'s work or the tokenizer library alone, once, for `benchmarks.input`.

    python -m benchmarks.tokens ours TEXT.jsonl TOKENIZER OUT
    python -m benchmarks.tokens alone TEXT.jsonl TOKENIZER

Prints tokens, seconds by the clock, and seconds of processors, those of worker processes included.
A process of its own, since workers import what the process that starts them runs.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kdjax.config import DataConfig
from kdjax.data.prepare.local import prepare
from kdjax.tokenizers.text_tokenizer import TextTokenizer

AT_ONCE = 1000
"""Documents of a call of the tokenizer."""


def alone(text: str, tokenizer: str) -> Callable[[], int]:
    """Return what tokenizes a text that is in memory on all cores, and counts the tokens."""
    # The library has threads of its own; the preparation has processes.
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    backend = TextTokenizer.read(Path(tokenizer))._backend
    with Path(text).open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]

    def run() -> int:
        tokens = 0
        for first in range(0, len(texts), AT_ONCE):
            documents = texts[first : first + AT_ONCE]
            encodings = backend.encode_batch(documents, add_special_tokens=False)
            tokens += sum(map(len, encodings))
        return tokens

    return run


def ours(text: str, tokenizer: str, out: str) -> Callable[[], int]:
    """Return what prepares a text, from the file to shards and manifest, and counts the tokens."""
    config = DataConfig(files=text)
    return lambda: sum(prepare(config, Path(tokenizer), Path(out)).text_tokens.values())


def processors() -> float:
    """Return processor seconds of this process and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Print tokens, seconds, and processor seconds of the work that the command line names."""
    name, *paths = sys.argv[1:]
    # Reading the text for the tokenizer alone is not timed.
    work = ours(*paths) if name == "ours" else alone(*paths)
    before = processors()
    clock = time.perf_counter()
    tokens = work()
    print(tokens, time.perf_counter() - clock, processors() - before)


if __name__ == "__main__":
    main()
