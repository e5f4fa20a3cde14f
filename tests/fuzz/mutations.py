"""Inputs that are nearly right: recipes with something changed, files with bytes changed.

All of it follows from a seed, so that an input that fails can be made again.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**32,
    2**63,
    10**30,
    0.0,
    -0.5,
    0.5,
    1e-300,
    1e300,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    " ",
    "~",
    "../../x",
    "/",
    "a/b",
    "CON",
    "\u2028",
    "\x00",
    "\ud7ff\U0001f600",
    "x" * 5000,
    "1e12",
    "nan",
    "scratch",
    [],
    [None],
    [0, 0],
    [-1],
    ["a", 1],
    {},
    {"a": {"b": []}},
    {"shape": "linear", "points": [[0, 1], [1, 0]]},
)
"""What a setting is replaced by."""


def numbered(seconds: float, first: int = 0) -> Iterator[int]:
    """Yield numbers from `first` on until so many seconds are over, ten at least."""
    end = time.monotonic() + seconds
    number = first
    while number < first + 10 or time.monotonic() < end:
        yield number
        number += 1


def places(recipe: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value below a recipe's root."""
    members: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(recipe, dict):
        members = iter(recipe.items())
    elif isinstance(recipe, list):
        members = iter(enumerate(recipe))
    for key, value in members:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed_recipe(recipe: dict[str, Any], settings: list[str], rng: random.Random) -> Any:
    """Return a recipe with one to three changes.

    Args:
        recipe: a recipe that is right.
        settings: dotted names of all settings, of which some are added.
        rng: source of the changes.
    """
    recipe = copy.deepcopy(recipe)
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(list(places(recipe)))
        owner = recipe
        for key in path[:-1]:
            owner = owner[key]
        key = path[-1]
        kind = rng.choice(("replace", "replace", "replace", "remove", "rename", "add", "near"))
        value = owner[key]
        if kind == "remove":
            del owner[key]
        elif kind == "rename" and isinstance(owner, dict):
            owner[rng.choice([f"{key}s", str(key)[1:], str(key).upper(), "", None, 1])] = owner.pop(
                key
            )
        elif kind == "near" and isinstance(value, (int, float)) and not isinstance(value, bool):
            owner[key] = rng.choice([value + 1, value - 1, -value, value * 10, value / 3])
        elif kind == "add":
            _add(recipe, rng.choice(settings).split("."), rng.choice(VALUES))
        else:
            owner[key] = copy.deepcopy(rng.choice(VALUES))
        if not isinstance(recipe, dict) or not list(places(recipe)):
            break
    return recipe


def _add(recipe: dict[str, Any], names: list[str], value: Any) -> None:
    """Put a value at a dotted name, where the sections above it are mappings."""
    owner: Any = recipe
    for name in names[:-1]:
        if not isinstance(owner, dict):
            return
        owner = owner.setdefault(name, {})
    if isinstance(owner, dict):
        owner[names[-1]] = copy.deepcopy(value)


def changed_text(text: str, rng: random.Random) -> str:
    """Return a text in which lines or characters are changed, as a typing error does."""
    lines = text.split("\n")
    for _ in range(rng.randint(1, 2)):
        number = rng.randrange(len(lines))
        kind = rng.choice(("twice", "cut", "indent", "character", "end", "join"))
        if kind == "twice":
            lines.insert(number, lines[number])
        elif kind == "cut":
            lines[number] = lines[number][: rng.randint(0, len(lines[number]))]
        elif kind == "indent":
            lines[number] = " " * rng.randint(1, 3) + lines[number]
        elif kind == "character":
            place = rng.randint(0, len(lines[number]))
            character = rng.choice([*":{}[],&*!|>'\"%@`#-?\t\x00\x1b\u0085\u2028", "<<: *a"])
            lines[number] = lines[number][:place] + character + lines[number][place:]
        elif kind == "end":
            lines = lines[: max(number, 1)]
        elif number + 1 < len(lines):
            lines[number] += lines.pop(number + 1)
    return "\n".join(lines)


def changed_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return a file's content damaged: cut, flipped, doubled, emptied, in another encoding."""
    data = bytearray(content)
    kind = rng.choice(
        ("cut", "flip", "flip", "zero", "insert", "empty", "double", "head", "encode", "swap")
    )
    if kind == "empty" or not data:
        return b""
    place = rng.randrange(len(data))
    if kind == "cut":
        del data[place:]
    elif kind == "flip":
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        data[place : place + 64] = bytes(len(data[place : place + 64]))
    elif kind == "insert":
        data[place:place] = rng.randbytes(rng.randint(1, 40))
    elif kind == "double":
        data += bytes(data)
    elif kind == "head":
        data[: min(16, len(data))] = rng.randbytes(min(16, len(data)))
    elif kind == "encode":
        text = bytes(data).decode("utf-8", errors="replace")
        return text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "cp037")), errors="replace")
    else:
        data[place:] = bytes(reversed(data[place:]))
    return bytes(data)
