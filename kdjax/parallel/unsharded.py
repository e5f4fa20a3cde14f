"""No layout: what stands for one where a program is traced for no mesh."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Unsharded:
    """Stand-in for a `Layout` where a program is traced for no mesh, as for its price."""

    def shard_forward(
        self, forward: Callable[..., Any], dtype: str, *, of_teacher: bool = False
    ) -> Callable[..., Any]:
        """Return the forward pass as it is."""
        return forward

    def constrain_gathered(self, tree: Any) -> Any:
        """Return the parameters as they are."""
        return tree

    def constrain_as_stored(self, gradients: Any) -> Any:
        """Return the gradients as they are."""
        return gradients

    def mesh_context(self) -> AbstractContextManager[Any]:
        """Return a context that changes nothing."""
        return nullcontext()


UNSHARDED = Unsharded()
