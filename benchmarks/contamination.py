"""Measure the search for evaluation rows in growing text: MB a second, and memory.

    python -m benchmarks.contamination --megabytes 20 200 --rows 10000

Writes a .jsonl file of shuffled paragraphs of the demo's text, and looks for rows in it: half of
them sentences of that text, half of them its words in another order. Each size is searched by a
process of its own. MB are of text in UTF-8, a second of one processor; the reading of the file, and
the hashes by which repeated documents are found, are part of it. Memory is the largest resident set
of the process.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import tables
from benchmarks.prepare import TEXT, write_corpus
from kdjax.data.contamination.index import RowIndex
from kdjax.text import sources
from kdjax.text.repeats import RepeatFinder

HEADER = ("MB", "rows", "found", "seconds to index", "seconds", "MB/s", "peak MiB")
PARAGRAPHS = 8
"""Paragraphs of a document, at most."""


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, nargs="+", default=[20, 200])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)  # one search, in this process
    options = parser.parse_args()
    if options.file:
        print(tables.row(measure(options.file, options.rows)))
        return
    print(tables.head(HEADER), flush=True)
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "text.jsonl"
            write_corpus(path, int(megabytes * 1e6), PARAGRAPHS)
            command = [sys.executable, "-m", "benchmarks.contamination"]
            subprocess.run([*command, "--rows", str(options.rows), "--file", path], check=True)


def measure(path: Path, count: int) -> tuple[str, ...]:
    """Look for rows in a file, and return the row of the table.

    Args:
        path: a .jsonl file of documents.
        count: number of rows.
    """
    rows = list(evaluation_rows(count))
    start = time.process_time()
    index = RowIndex((row,) for row in rows)
    indexed = time.process_time()
    documents = RepeatFinder(deduplicate=False).split(sources.documents(str(path), "text"), 0.05)
    found = index.search((document.text,) for document in documents if not document.held_out)
    seconds = time.process_time() - indexed
    megabytes = path.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"{megabytes:,.0f}",
        f"{count:,}",
        f"{found.sum():,}",
        f"{indexed - start:.1f}",
        f"{seconds:,.1f}",
        f"{megabytes / seconds:,.1f}",
        f"{peak / 1024:,.0f}",
    )


def evaluation_rows(count: int) -> Iterator[str]:
    """Yield sentences of the demo's text, every other one with its words in another order."""
    values = json.loads(sources.locate(TEXT).read_text(encoding="utf-8")).values()
    paragraphs = [value["extract"] for value in values if value.get("extract")]
    chance = random.Random(1)
    for number in range(count):
        sentence = chance.choice(chance.choice(paragraphs).split(". "))
        words = sentence.split()
        if number % 2:
            chance.shuffle(words)
        yield " ".join(words)


if __name__ == "__main__":
    main()
