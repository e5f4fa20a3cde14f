"""Reading YAML that says one thing: a key stands once in a mapping, and aliases cannot grow it.

`1e12` is a number, as in YAML 1.2, and a date is text. `yes`, `no`, `on` and `off` are true and
false, as in YAML 1.1 and in PyYAML.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import yaml

from kdjax.errors import InputError

MODE = "strict_yaml"
"""Name under which jsonargparse knows `load`."""
MOST_NODES = 100_000
"""Most scalars, lists and mappings of a file, each counted as often as an alias repeats it."""
_MERGE = "tag:yaml.org,2002:merge"
_FLOAT = "tag:yaml.org,2002:float"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with numbers of its own, and checks of the keys before merging."""

    def check_keys(self, mapping: yaml.MappingNode) -> None:
        """Check that a mapping has each key once, and merges each once.

        Raises:
            InputError: a key stands twice, or two mappings that are merged have it.
        """
        _check_once(self._keys(mapping))
        # The first of several merged mappings would win silently; a key written here always does.
        direct_keys = {key for key, _ in self._keys(mapping)}
        for key_node, value in mapping.value:
            if key_node.tag == _MERGE and isinstance(value, yaml.SequenceNode):
                merged = itertools.chain.from_iterable(map(self._merged_keys, value.value))
                _check_once((key, node) for key, node in merged if key not in direct_keys)

    def _keys(self, mapping: yaml.MappingNode) -> Iterator[tuple[Any, yaml.Node]]:
        """Yield the keys of a mapping that are scalars, each with the node it stands in."""
        for node, _ in mapping.value:
            if node.tag == _MERGE:
                yield "<<", node
            elif isinstance(node, yaml.ScalarNode):
                yield self.construct_object(node), node

    def _merged_keys(self, node: yaml.Node) -> Iterator[tuple[Any, yaml.Node]]:
        """Yield the keys that merging a mapping brings, those that it merges itself included."""
        if not isinstance(node, yaml.MappingNode):
            return
        direct = dict(self._keys(node))
        direct.pop("<<", None)
        yield from direct.items()
        for key_node, value in node.value:
            if key_node.tag == _MERGE:
                inner = value.value if isinstance(value, yaml.SequenceNode) else [value]
                merged = itertools.chain.from_iterable(map(self._merged_keys, inner))
                yield from (pair for pair in merged if pair[0] not in direct)


def _without_tags(resolvers: dict[str, Any], *tags: str) -> dict[str, Any]:
    """Return PyYAML's resolvers of plain scalars, by first letter, without some tags."""
    remaining = {}
    for letter, rules in resolvers.items():
        remaining[letter] = [(tag, pattern) for tag, pattern in rules if tag not in tags]
    return remaining


# A table of the loader's own: PyYAML's belongs to all loaders of the process.
_Loader.yaml_implicit_resolvers = _without_tags(
    yaml.SafeLoader.yaml_implicit_resolvers, _FLOAT, _TIMESTAMP
)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def _check_once(keys: Iterator[tuple[Any, yaml.Node]]) -> None:
    """Check that no key comes twice.

    Raises:
        InputError: one does; says where both stand.
    """
    first: dict[Any, yaml.Node] = {}
    for key, node in keys:
        try:
            before = first.setdefault(key, node)
        except TypeError:  # no key at all, which PyYAML says itself
            continue
        if before is not node:
            raise InputError(
                f"line {before.start_mark.line + 1} and line {node.start_mark.line + 1} both set "
                f"{key!r}, expected each key once"
            )


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """Count the nodes below a node and itself, with repetitions by aliases.

    Args:
        node: the node.
        sizes: sizes of the nodes that were counted before, 0 for those that are being counted.

    Raises:
        InputError: a node lies within itself.
    """
    if node in sizes:
        if not sizes[node]:
            raise InputError(f"line {node.start_mark.line + 1} refers to what it stands in itself")
        return sizes[node]
    sizes[node] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            size += _size(key, sizes) + _size(value, sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_size(value, sizes) for value in node.value)
    sizes[node] = size
    return size


def load(text: str) -> Any:
    """Read YAML.

    Args:
        text: the text of a YAML file.

    Raises:
        yaml.YAMLError: the text is none.
        InputError: it says two things, grows beyond `MOST_NODES` by its aliases, or nests too
            deeply.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        sizes: dict[yaml.Node, int] = {}
        size = _size(node, sizes)
        if size > MOST_NODES:
            raise InputError(
                f"its aliases make {size:.3g} values of it, expected at most {MOST_NODES:,}"
            )
        # Before anything is merged: afterwards a key that is overridden stands twice, too.
        for part in sizes:
            if isinstance(part, yaml.MappingNode):
                loader.check_keys(part)
        return loader.construct_document(node)
    except RecursionError:
        raise InputError("lists and mappings nest too deeply, expected a recipe") from None
    except ValueError as e:  # a date or a number that cannot be
        raise yaml.YAMLError(str(e)) from None
