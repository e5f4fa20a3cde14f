"""Tokens a second, once: of `kdjax prepare`'s work, or of the tokenizer library alone.
`benchmarks.input` runs it.

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
from kdjax.data.tokenizer import TextTokenizer

AT_ONCE = 1000
"""Documents of a call of the tokenizer."""


def alone(text: str, tokenizer: str) -> Callable[[], int]:
    """The tokenizer on all cores; the text is in memory, and what it gives is counted and
    dropped."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    backend = TextTokenizer.read(Path(tokenizer))._backend
    with Path(text).open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]

    def run() -> int:
        some = (texts[first : first + AT_ONCE] for first in range(0, len(texts), AT_ONCE))
        return sum(
            len(found)
            for each in some
            for found in backend.encode_batch(each, add_special_tokens=False)
        )

    return run


def ours(text: str, tokenizer: str, out: str) -> Callable[[], int]:
    """The preparation, from the file to shards and manifest."""
    return lambda: sum(
        prepare(DataConfig(files=text), Path(tokenizer), Path(out)).text_tokens.values()
    )


def processors() -> float:
    """Seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    which, *rest = sys.argv[1:]
    work = {"alone": alone, "ours": ours}[which](*rest)
    before = processors()
    clock = time.perf_counter()
    tokens = work()
    print(tokens, time.perf_counter() - clock, processors() - before)


if __name__ == "__main__":
    main()
