"""TPUs' figures that an estimate needs: clock, memory, links. Peak FLOPs are in
`kdjax.budget.hardware`."""

from __future__ import annotations

from dataclasses import dataclass

from kdjax.budget.hardware import Peak, vendor_peak
from kdjax.errors import InputError


@dataclass(frozen=True)
class Chip:
    """A TPU as JAX sees one: a chip, or on TPU7x one of its two cores, with half of the memory.

    Attributes:
        kind: the kind's name in JAX (`jax.Device.device_kind`).
        multiplies: multiply-adds that its matrix units do in a cycle.
        hbm: bytes of HBM that a program can have: the compiler's figure (in its message when a
            program does not fit), which is less than the vendor's.
        hbm_bandwidth: bytes a second of HBM.
        link_bandwidth: bytes a second of one link between chips, in one direction.
    """

    kind: str
    multiplies: int
    hbm: int
    hbm_bandwidth: float
    link_bandwidth: float

    @property
    def peak(self) -> Peak:
        """Return the vendor's figure of its peak."""
        peak = vendor_peak(self.kind)
        assert peak is not None
        return peak

    @property
    def clock(self) -> float:
        """Return the cycles a second: at the peak, every matrix unit is busy in each."""
        return self.peak.flops_per_second / (2 * self.multiplies)


GIB = 2**30
CHIPS = {
    "v4": Chip("TPU v4", 8 * 128 * 128, int(30.75 * GIB), 1200e9, 50e9),
    "v5e": Chip("TPU v5 lite", 4 * 128 * 128, int(15.75 * GIB), 819e9, 400e9 / 4 / 2),
    "v5p": Chip("TPU v5", 8 * 128 * 128, int(95.74 * GIB), 2765e9, 1200e9 / 6 / 2),
    "v6e": Chip("TPU v6 lite", 4 * 256 * 256, int(31.25 * GIB), 1638e9, 800e9 / 4 / 2),
    "tpu7x": Chip("TPU7x", 4 * 256 * 256, int(94.75 * GIB), 7380e9 / 2, 1200e9 / 6 / 2),
}
"""Chips by their name in topologies.

HBM and link bandwidths: https://docs.cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x), whose
bidirectional figure a chip is over its links (four in a 2D torus, six in a 3D one) and both
directions. v4's links: Jouppi et al. 2023, arXiv 2304.01433. Multiply-adds: matrix units times
their size; the clocks that follow (1.05, 1.5, 1.75, 1.75 and 2.2 GHz) are checked by
`benchmarks/estimates.py`."""


def chip(name: str) -> Chip:
    """Return a chip by its name or JAX's name of its kind.

    Raises:
        InputError: no chip has this name.
    """
    for short_name, known in CHIPS.items():
        if name in (short_name, known.kind):
            return known
    raise InputError(f"{name!r} is no TPU that is known, expected one of {', '.join(CHIPS)}")
