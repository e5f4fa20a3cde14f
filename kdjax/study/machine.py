"""The machine: what numbers were made with, and how a run's steps used the devices."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import jax

import kdjax
from kdjax.budget.hardware import peak, peak_memory, utilisation
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import PARTS
from kdjax.results.runs import HardwareUse
from kdjax.training.compiled_phase import CompiledPhase


def versions() -> dict[str, Any]:
    """Return the software and the device that numbers are made with."""
    device = jax.devices()[0]
    return {
        "kdjax": kdjax.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": f"{device.device_kind} x{jax.device_count()}",
    }


def hardware_use(
    compiled_phases: Sequence[CompiledPhase], ledger: Ledger, side_by_side: int
) -> HardwareUse:
    """Compute the FLOPs, utilisation and memory of a run's steps.

    Args:
        compiled_phases: phases of the run, with their programs and prices.
        ledger: steps and seconds that the run has spent.
        side_by_side: number of runs that took their steps together, this one included.
    """
    programs = [compiled_phase.program for compiled_phase in compiled_phases]
    devices = programs[0].layout.device_count
    device_peak = peak(jax.local_devices()[0])
    seconds = ledger.seconds.get("compute", 0.0)
    model_flops = sum(ledger.spent[part] for part in PARTS)
    # Where XLA does not say it of one phase, nothing is known of the whole.
    hardware_flops: int | None = 0
    for steps, program in zip(ledger.steps_by_phase, programs, strict=True):
        if hardware_flops is None or program.hardware_flops is None:
            hardware_flops = None
        else:
            hardware_flops += steps * program.hardware_flops
    program_bytes = [p.memory["peak"] for p in programs if p.memory is not None]
    memory_bytes, memory_source = peak_memory()

    def utilisation_by(flops: int | None) -> float | None:
        """Return the share of the devices' peak; None where nothing was counted or timed."""
        if not (flops and seconds):
            return None
        return utilisation(flops, seconds, device_peak, devices)

    return HardwareUse(
        model_flops=model_flops,
        hardware_flops=hardware_flops,
        devices=devices,
        side_by_side=side_by_side,
        peak=device_peak,
        model_utilisation=utilisation_by(model_flops),
        hardware_utilisation=utilisation_by(hardware_flops),
        program_bytes=max(program_bytes, default=None),
        high_water_bytes=memory_bytes,
        high_water_source=memory_source,
    )
