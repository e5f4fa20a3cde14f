"""Sets of files that are numbered `…-00000-of-00003`: what of them is missing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

_SHARD = re.compile(r"(?P<before>.*?)(?P<number>\d+)-of-(?P<total>\d+)(?P<behind>[^/]*)", re.ASCII)


def missing_shards(names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each set of files of which some are not there.

    Args:
        names: paths or URLs; those without a number `…-of-N` are of no set.

    Example:
        >>> list(missing_shards(["a-00000-of-00002.txt", "b.txt"]))
        ['a-…-of-00002.txt: 1 of 2 files are read, without 00001 for instance']
    """
    sets: defaultdict[tuple[str, str, str], set[int]] = defaultdict(set)
    for name in names:
        match = _SHARD.fullmatch(name)
        if match is not None:
            sets[match["before"], match["total"], match["behind"]].add(int(match["number"]))
    for (before, total, behind), numbers in sets.items():
        # Counted from 0, or from 1 where the last number is the total.
        first = 1 if int(total) in numbers else 0
        behind_last = first + int(total)
        # Only as far as there may be one: a total may be any number.
        missing = next((n for n in range(first, behind_last) if n not in numbers), None)
        if missing is not None:
            yield (
                f"{before}…-of-{total}{behind}: {len(numbers):,} of {int(total):,} files are read, "
                f"without {missing:0{len(total)}} for instance"
            )
