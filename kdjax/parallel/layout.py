"""How devices are laid out, and where arrays lie on them: the mesh, and the rules by which
parameters are split.

The mesh has three axes. A batch is split over `data` and `fsdp`, and every group of `tensor`
devices works on the same sequences. Parameters, the optimiser's state and the teacher are stored
split over `fsdp` and gathered whole for the step, whose gradients are split again (Rajbhandari et
al. 2020, arXiv 1910.02054, stage 3); over `tensor` they are split by heads, feed-forward units and
vocabulary entries for the work itself (Shoeybi et al. 2019, arXiv 1909.08053).
"""

from __future__ import annotations

import fnmatch
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kdjax.config import MeshConfig, ModelConfig
from kdjax.errors import InputError
from kdjax.models.ops.dtypes import cast
from kdjax.models.ops.sharding import BATCH_AXES, BATCH_SHARDED

AXES = ("data", "fsdp", "tensor")
NONE = "none"
Rule = tuple[str, tuple[str, ...]]
RULES: tuple[Rule, ...] = (
    ("*.word.embedding", ("tensor", "fsdp")),  # [V, D]
    ("*.embedding", (NONE, "fsdp")),
    ("*.attention.output.kernel", ("tensor", "fsdp")),  # [H d, D]
    ("*.ffn.down.kernel", ("tensor", "fsdp")),  # [F, D]
    ("*.kernel", ("fsdp", "tensor")),  # [D, H d], [D, F], the MLM head's, projections
    ("*.query.bias", ("tensor",)),
    ("*.key.bias", ("tensor",)),
    ("*.value.bias", ("tensor",)),
    ("*.up.bias", ("tensor",)),
    ("*mlm.dense.bias", ("tensor",)),
    ("*mlm.norm.*", ("tensor",)),
    ("*mlm.bias", ("tensor",)),  # [V]
    ("objective.*.bias", ("tensor",)),
)
"""A pattern over a parameter's dotted path -> the mesh axis over which each of its own is split.
The first that matches counts; what none matches is whole on every device, and so is an axis that
the devices do not divide."""


@dataclass(frozen=True)
class Layout:
    """A mesh, and where arrays lie on it.

    Attributes:
        mesh: of the axes `data`, `fsdp` and `tensor`.
        rules: how parameters are split, as `RULES`.
        splits_teacher: whether the teacher is split over `fsdp`.
    """

    mesh: Mesh
    rules: tuple[Rule, ...] = RULES
    splits_teacher: bool = True

    @staticmethod
    def of(
        config: MeshConfig = MeshConfig(), devices: Sequence[jax.Device] | None = None
    ) -> Layout:
        """A recipe's layout over the given devices (default: all of all processes).

        Raises:
            InputError: the axes' sizes do not make up the devices, or a rule names no axis of the
                mesh.
        """
        devices = list(devices or jax.devices())
        inner = config.fsdp * config.tensor
        data = config.data or len(devices) // inner
        if data * inner != len(devices):
            sizes = f"data {config.data or 'any'}, fsdp {config.fsdp}, tensor {config.tensor}"
            raise InputError(
                f"train.mesh: {sizes} on {len(devices)} devices, expected sizes whose product is "
                "that"
            )
        own = tuple(config.rules.items())
        for pattern, axes in own:
            if unknown := set(axes) - {"fsdp", "tensor", NONE}:
                raise InputError(
                    f"train.mesh.rules.{pattern}: {min(unknown)!r}, expected fsdp, tensor or none"
                )
            if len(set(axes) - {NONE}) < len([axis for axis in axes if axis != NONE]):
                raise InputError(
                    f"train.mesh.rules.{pattern}: {list(axes)}, expected each axis at most once"
                )
        mesh = jax.make_mesh(
            (data, config.fsdp, config.tensor), AXES, (AxisType.Auto,) * 3, devices=devices
        )
        return Layout(mesh, own + RULES, config.teacher == "split")

    @property
    def devices(self) -> int:
        """How many devices there are, on all hosts."""
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        """The same array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch_sharding(self) -> NamedSharding:
        """The first axis split over the devices that take different sequences."""
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES))

    @property
    def batch_parts(self) -> int:
        """In how many parts a batch is split."""
        return math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    def rows(self, batch: int) -> np.ndarray:
        """Which rows of a batch the devices of this process take, ascending."""
        taken = self.batch_sharding.addressable_devices_indices_map((batch,)).values()
        return np.unique(np.concatenate([np.arange(batch)[index] for index in taken]))

    def place_batch(self, batch: Mapping[str, np.ndarray], size: int) -> dict[str, jax.Array]:
        """Puts a batch on the devices.

        Args:
            batch: of each array, the rows that this process takes (`rows`).
            size: rows of the whole batch, over all processes.
        """
        if jax.process_count() == 1:
            return jax.device_put(dict(batch), self.batch_sharding)  # type: ignore[no-any-return]
        rows = self.rows(size)

        def part(array: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
            here = np.searchsorted(rows, np.arange(size)[index[0]])
            return array[here[0] : here[-1] + 1]

        return {
            name: jax.make_array_from_callback(
                (size, *x.shape[1:]), self.batch_sharding, functools.partial(part, x)
            )
            for name, x in batch.items()
        }

    def place(self, tree: Any, where: Any) -> Any:
        """Puts arrays on the devices; every process has all of each.

        Args:
            tree: arrays.
            where: their shardings: one, or a tree of them.
        """
        if jax.process_count() == 1:
            return jax.device_put(tree, where)
        shardings = (
            jax.tree.map(lambda _: where, tree)
            if isinstance(where, jax.sharding.Sharding)
            else where
        )

        def put(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
            return jax.make_array_from_callback(
                np.shape(x), sharding, lambda index: np.asarray(x)[index]
            )

        return jax.tree.map(put, jax.device_get(tree), shardings)

    def param_sharding(self, tree: Any) -> Any:
        """Where the leaves of a tree of parameters lie between steps; also of an optimiser's state
        over them."""
        return jax.tree_util.tree_map_with_path(self._sharding, tree)

    def teacher_sharding(self, tree: Any) -> Any:
        """Where the leaves of a teacher's parameters lie."""
        return (
            self.param_sharding(tree)
            if self.splits_teacher
            else _unsharded(self.param_sharding(tree))
        )

    def shard_forward(self, forward: Callable[..., Any], dtype: str) -> Callable[..., Any]:
        """Inside a compiled function: a forward pass that each group of devices does for its own
        sequences.

        Matrices are cast to `dtype` where they are stored, and gathered over `fsdp` as that. So are
        gradients summed: once for each parameter, however often it is used, and over `fsdp` each
        device gets what it stores.

        Args:
            forward: `(params, teacher_params, batch, dropout_key)` to a tree of arrays `[B, ...]`.
            dtype: of what is sent.
        """
        # Where layers are whole, all axes are manual: XLA does not split kernels. Where they are
        # not, it gathers by itself: told to in the function, it would gather over `tensor` too.
        whole = self.mesh.shape["tensor"] == 1
        manual = set(AXES if whole else BATCH_AXES)

        def run(params: Any, teacher_params: Any, batch: Any, key: Any = None) -> Any:
            given = jax.tree.map(
                lambda x: x if x.ndim < 2 else cast(x, dtype), (params, teacher_params)
            )
            if self.batch_parts == 1:
                return forward(*given, batch, key)
            stored = self.param_sharding(given[0]), self.teacher_sharding(given[1])
            if not whole:
                stored = _unsharded(stored)
                given = jax.lax.with_sharding_constraint(given, stored)
            specs = jax.tree.map(self._over_fsdp, stored)

            def of_device(given: Any, batch: Any, key: Any) -> Any:
                return forward(*jax.tree.map(_gathered, given, specs), batch, key)

            split = jax.shard_map(
                of_device,
                in_specs=(specs, BATCH_SHARDED, BATCH_SHARDED),
                out_specs=BATCH_SHARDED,
                axis_names=manual,
                check_vma=False,
            )
            return split(given, batch, key)

        return run

    def all_gather(self, tree: Any) -> Any:
        """Inside a compiled function: parameters as the work needs them, no longer split over
        `fsdp`."""
        return jax.lax.with_sharding_constraint(tree, _unsharded(self.param_sharding(tree)))

    def reduce_scatter(self, gradients: Any) -> Any:
        """Inside a compiled function: gradients of parameters, as those are stored."""
        return jax.lax.with_sharding_constraint(gradients, self.param_sharding(gradients))

    def mesh_context(self) -> AbstractContextManager[Any]:
        """Inside a compiled function: what is traced in the block sees the mesh
        (`kdjax.models.ops.dispatch`)."""
        context: AbstractContextManager[Any] = jax.sharding.use_abstract_mesh(
            self.mesh.abstract_mesh
        )
        return context

    def check_batch(self, batch: int, microbatches: int = 1) -> None:
        """Raises InputError unless a batch splits evenly over the devices and, on each, over the
        microbatches."""
        if batch % (self.batch_parts * microbatches):
            parts = f" times {microbatches} microbatches" if microbatches > 1 else ""
            raise InputError(
                f"a batch has {batch} sequences, expected a multiple of the {self.batch_parts} "
                "parts the mesh splits "
                f"it into{parts}"
            )

    def check_model(self, model: ModelConfig, whose: str) -> None:
        """Raises InputError unless the model's heads split evenly over `tensor`."""
        if model.heads % (tensor := self.mesh.shape["tensor"]):
            raise InputError(
                f"train.mesh.tensor is {tensor}, expected a divisor of the {model.heads} heads of "
                f"{whose}"
            )

    def _over_fsdp(self, sharding: NamedSharding) -> PartitionSpec:
        """How an array is split over `fsdp` alone."""
        several = self.mesh.shape["fsdp"] > 1
        return PartitionSpec(
            *("fsdp" if axis == "fsdp" and several else None for axis in sharding.spec)
        )

    def _sharding(self, path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        axes = self._axes(_dotted(path))
        if len(axes) != len(leaf.shape):  # a scalar of the optimiser's, a parameter of another rank
            axes = (NONE,) * len(leaf.shape)
        split = (
            axis if axis != NONE and n % self.mesh.shape[axis] == 0 else None
            for axis, n in zip(axes, leaf.shape, strict=True)
        )
        return NamedSharding(self.mesh, PartitionSpec(*split))

    def _axes(self, name: str) -> tuple[str, ...]:
        return next(
            (axes for pattern, axes in self.rules if fnmatch.fnmatchcase(name, pattern)), ()
        )


def local() -> Layout:
    """The devices of this process, for work that each does alone: a batch split over all of
    them."""
    return Layout.of(devices=jax.local_devices())


def _unsharded(shardings: Any) -> Any:
    """The same, but not split over `fsdp`."""

    def whole(one: NamedSharding) -> NamedSharding:
        return NamedSharding(
            one.mesh, PartitionSpec(*(None if axis == "fsdp" else axis for axis in one.spec))
        )

    return jax.tree.map(whole, shardings)


def _gathered(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    """On a device: a parameter that is whole, from how it is split over `fsdp`."""
    if "fsdp" not in spec:
        return x
    whole: jax.Array = jax.lax.all_gather(x, "fsdp", axis=spec.index("fsdp"), tiled=True)
    return whole


def _dotted(path: tuple[Any, ...]) -> str:
    """The keys of a path, whatever holds the mappings they are in."""
    return ".".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
