"""How devices are laid out, and where arrays lie on them.

The mesh has three axes. A batch is split over `data` and `fsdp`, and every group of `tensor`
devices works on the same sequences. Parameters, the optimiser's state and the teacher are stored
split over `fsdp` and gathered whole for the step, whose gradients are split again (Rajbhandari et
al. 2020, arXiv 1910.02054, stage 3); over `tensor` they are split by heads, feed-forward units and
vocabulary entries for the work itself (Shoeybi et al. 2019, arXiv 1909.08053).
"""

from __future__ import annotations

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
from kdjax.parallel.sharding_rules import NONE, RULES, Rule, axes_of, check_matches, check_rule

AXES = ("data", "fsdp", "tensor")


@dataclass(frozen=True)
class Layout:
    """A mesh, and where arrays lie on it.

    Attributes:
        mesh: devices, along the axes `data`, `fsdp` and `tensor`.
        rules: patterns that say how parameters are split (`kdjax.parallel.sharding_rules`).
        splits_teacher: whether the teacher is split over `fsdp`.
    """

    mesh: Mesh
    rules: tuple[Rule, ...] = RULES
    splits_teacher: bool = True

    @staticmethod
    def from_config(
        config: MeshConfig = MeshConfig(), devices: Sequence[jax.Device] | None = None
    ) -> Layout:
        """Return a recipe's layout.

        Args:
            config: sizes of the mesh's axes, and rules that come before `RULES`.
            devices: devices of the mesh; None: all of all processes.

        Raises:
            InputError: the axes' sizes do not make up the devices, or a rule names no axis of the
                mesh.
        """
        # The sizes of the axes have to make up the devices.
        devices = list(devices or jax.devices())
        inner = config.fsdp * config.tensor
        data = config.data or len(devices) // inner
        if data * inner != len(devices):
            sizes = f"data {config.data or 'any'}, fsdp {config.fsdp}, tensor {config.tensor}"
            raise InputError(
                f"train.mesh: {sizes} on {len(devices)} devices, expected sizes whose product is "
                "that"
            )
        # A recipe's rules come first, so they win over the built-in ones.
        recipe_rules = tuple(config.rules.items())
        for pattern, axes in recipe_rules:
            check_rule(pattern, axes)
        mesh = jax.make_mesh(
            (data, config.fsdp, config.tensor), AXES, (AxisType.Auto,) * 3, devices=devices
        )
        return Layout(mesh, recipe_rules + RULES, config.teacher == "split")

    @property
    def device_count(self) -> int:
        """Return the number of devices, on all hosts."""
        return self.mesh.size

    @property
    def replicated(self) -> NamedSharding:
        """Return the sharding of an array that is the same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch_sharding(self) -> NamedSharding:
        """Return the sharding of an array whose first axis is a batch's sequences."""
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXES))

    @property
    def batch_parts(self) -> int:
        """Return in how many parts a batch is split."""
        return math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    def rows(self, batch_size: int) -> np.ndarray:
        """Return the rows of a batch that the devices of this process take, ascending."""
        slices = self.batch_sharding.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices]))

    def place_batch(self, batch: Mapping[str, np.ndarray], batch_size: int) -> dict[str, jax.Array]:
        """Put a batch on the devices.

        Args:
            batch: arrays with the rows that this process takes (`rows`).
            batch_size: rows of the whole batch, over all processes.
        """
        if jax.process_count() == 1:
            return jax.device_put(dict(batch), self.batch_sharding)  # type: ignore[no-any-return]
        # Each device gets its rows from those that this process has.
        rows = self.rows(batch_size)

        def rows_of_device(array: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
            local = np.searchsorted(rows, np.arange(batch_size)[index[0]])
            return array[local[0] : local[-1] + 1]

        placed: dict[str, jax.Array] = {}
        for name, array in batch.items():
            placed[name] = jax.make_array_from_callback(
                (batch_size, *array.shape[1:]),
                self.batch_sharding,
                functools.partial(rows_of_device, array),
            )
        return placed

    def place(self, tree: Any, shardings: Any) -> Any:
        """Put arrays on the devices; every process has all of each.

        Args:
            tree: arrays.
            shardings: places for the arrays: one sharding, or a tree of them.
        """
        if jax.process_count() == 1:
            return jax.device_put(tree, shardings)
        if isinstance(shardings, jax.sharding.Sharding):
            shardings = jax.tree.map(lambda _, sharding=shardings: sharding, tree)

        def put(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
            return jax.make_array_from_callback(
                np.shape(x), sharding, lambda index: np.asarray(x)[index]
            )

        return jax.tree.map(put, jax.device_get(tree), shardings)

    def param_sharding(self, tree: Any) -> Any:
        """Return the sharding of parameters between steps, or of optimiser state over them."""
        return jax.tree_util.tree_map_with_path(self._sharding, tree)

    def teacher_sharding(self, tree: Any) -> Any:
        """Return the sharding of a teacher's parameters."""
        shardings = self.param_sharding(tree)
        if self.splits_teacher:
            return shardings
        return _without_fsdp(shardings)

    def shard_forward(
        self, forward: Callable[..., Any], dtype: str, *, of_teacher: bool = False
    ) -> Callable[..., Any]:
        """Build a forward pass that each group of devices does for its own sequences.

        It is for use inside a compiled function.

        Matrices are cast to `dtype` where they are stored, and gathered over `fsdp` as that. So are
        gradients summed: once for each parameter, however often it is used, and over `fsdp` each
        device gets what it stores.

        Args:
            forward: `(params, batch, **arrays)` to a tree of arrays `[B, ...]`; all but `params`
                are split over devices like the batch.
            dtype: type in which matrices are sent.
            of_teacher: whether it is the teacher's, whose parameters lie elsewhere than the
                student's.
        """
        # With a `tensor` axis of 1 all axes are manual, as XLA does not split kernels. With more,
        # XLA inserts the gather over `fsdp` itself: an explicit one would gather over `tensor` too.
        layers_are_whole = self.mesh.shape["tensor"] == 1
        manual_axes = set(AXES if layers_are_whole else BATCH_AXES)

        def cast_matrix(x: jax.Array) -> jax.Array:
            if x.ndim >= 2:
                return cast(x, dtype)
            return x

        def sharded_forward(params: Any, batch: Any, **arrays: Any) -> Any:
            params = jax.tree.map(cast_matrix, params)
            if self.batch_parts == 1:
                return forward(params, batch, **arrays)

            # Rules of a recipe may name a parameter by its whole path in the state.
            if of_teacher:
                shardings = self.teacher_sharding(params)
            else:
                shardings = self.param_sharding({"model": params})["model"]
            if not layers_are_whole:
                shardings = _without_fsdp(shardings)
                params = jax.lax.with_sharding_constraint(params, shardings)
            specs = jax.tree.map(self._over_fsdp, shardings)

            def run_on_device(params: Any, batch: Any, arrays: Any) -> Any:
                return forward(jax.tree.map(_gather_fsdp, params, specs), batch, **arrays)

            sharded = jax.shard_map(
                run_on_device,
                in_specs=(specs, BATCH_SHARDED, BATCH_SHARDED),
                out_specs=BATCH_SHARDED,
                axis_names=manual_axes,
                check_vma=False,
            )
            return sharded(params, batch, arrays)

        return sharded_forward

    def constrain_gathered(self, tree: Any) -> Any:
        """Return parameters no longer split over `fsdp`, inside a compiled function."""
        return jax.lax.with_sharding_constraint(tree, _without_fsdp(self.param_sharding(tree)))

    def constrain_as_stored(self, gradients: Any) -> Any:
        """Return gradients split as their parameters are stored, inside a compiled function."""
        return jax.lax.with_sharding_constraint(gradients, self.param_sharding(gradients))

    def mesh_context(self) -> AbstractContextManager[Any]:
        """Let what is traced in the block see the mesh (`kdjax.models.ops.dispatch`)."""
        context: AbstractContextManager[Any] = jax.sharding.use_abstract_mesh(
            self.mesh.abstract_mesh
        )
        return context

    def check_batch(self, batch_size: int, grad_accum_steps: int = 1) -> None:
        """Check that a batch splits evenly over the devices, and there over accumulation steps.

        Args:
            batch_size: rows of the batch.
            grad_accum_steps: parts in which each device takes its rows, one after another.

        Raises:
            InputError: it does not.
        """
        if batch_size % (self.batch_parts * grad_accum_steps):
            times = ""
            if grad_accum_steps > 1:
                times = f" times train.grad_accum_steps, {grad_accum_steps}"
            raise InputError(
                f"a batch has {batch_size} sequences, expected a multiple of the "
                f"{self.batch_parts} parts the mesh splits it into{times}"
            )

    def check_rules(self, ranks: Mapping[str, int]) -> None:
        """Check that each of the recipe's rules is of some parameter, and has its axes.

        Args:
            ranks: dotted path of each parameter -> its number of axes.

        Raises:
            InputError: a pattern that matches nothing, or a rule with another number of axes.
        """
        # Those of `RULES` come last, and hold for any model.
        check_matches(self.rules[: -len(RULES)], ranks)

    def check_model(self, model: ModelConfig, whose: str) -> None:
        """Check that a model's heads split evenly over `tensor`.

        Args:
            model: configuration of the model.
            whose: name of the model, for the message.

        Raises:
            InputError: they do not.
        """
        tensor = self.mesh.shape["tensor"]
        if model.heads % tensor:
            raise InputError(
                f"train.mesh.tensor is {tensor}, expected a divisor of the {model.heads} heads of "
                f"{whose}"
            )

    def _over_fsdp(self, sharding: NamedSharding) -> PartitionSpec:
        """Return the sharding of an array over `fsdp` alone."""
        if self.mesh.shape["fsdp"] == 1:
            return PartitionSpec(*[None] * len(sharding.spec))
        return _keep_axes(sharding.spec, "fsdp")

    def _sharding(self, path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        """Return the sharding of the leaf at a path."""
        axes = axes_of(_dotted(path), self.rules)
        if len(axes) != len(leaf.shape):
            # A scalar of the optimiser's, or a parameter of another rank
            return NamedSharding(self.mesh, PartitionSpec(*[None] * len(leaf.shape)))
        spec: list[str | None] = [None] * len(axes)
        for n, (axis, size) in enumerate(zip(axes, leaf.shape, strict=True)):
            if axis != NONE and size % self.mesh.shape[axis] == 0:
                spec[n] = axis
        return NamedSharding(self.mesh, PartitionSpec(*spec))


def local() -> Layout:
    """Return a layout of this process's devices alone: a batch is split over all of them."""
    return Layout.from_config(devices=jax.local_devices())


def _without_fsdp(shardings: Any) -> Any:
    """Return the same shardings, but not split over `fsdp`."""

    def without_fsdp(sharding: NamedSharding) -> NamedSharding:
        return NamedSharding(sharding.mesh, _keep_axes(sharding.spec, "tensor"))

    return jax.tree.map(without_fsdp, shardings)


def _keep_axes(spec: PartitionSpec, kept_axis: str) -> PartitionSpec:
    """Return a spec of parameters without splits over any other mesh axis."""
    return PartitionSpec(*[axis if axis == kept_axis else None for axis in spec])


def _gather_fsdp(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    """Return a whole parameter from its parts over `fsdp`, on a device."""
    if "fsdp" not in spec:
        return x
    gathered: jax.Array = jax.lax.all_gather(x, "fsdp", axis=spec.index("fsdp"), tiled=True)
    return gathered


def _dotted(path: tuple[Any, ...]) -> str:
    """Return the keys of a path, whatever holds the mappings they are in."""
    return ".".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
