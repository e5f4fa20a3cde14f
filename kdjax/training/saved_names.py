"""States of training as pytrees, whose fields keep the names by which they are saved."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import jax

StateClass = TypeVar("StateClass")

STORED_NAMES = {"opt_state": "opt"}
"""Fields of a state that saved states have under another name -> that name."""


def register_state(state_class: type[StateClass]) -> type[StateClass]:
    """Register a dataclass of arrays as a pytree whose paths have the names of saved states.

    Checkpoints and their checksums go by these paths (`STORED_NAMES`), so a field may be renamed
    and what was saved before is still read.

    Args:
        state_class: a dataclass, all of whose fields are arrays or trees of them.
    """
    names = [field.name for field in fields(state_class)]  # type: ignore[arg-type]
    keys = [jax.tree_util.GetAttrKey(STORED_NAMES.get(name, name)) for name in names]

    def flatten_with_keys(state: StateClass) -> tuple[Any, None]:
        return [(key, getattr(state, name)) for key, name in zip(keys, names, strict=True)], None

    def unflatten(_: None, children: Any) -> StateClass:
        return state_class(*children)

    jax.tree_util.register_pytree_with_keys(state_class, flatten_with_keys, unflatten)
    return state_class
