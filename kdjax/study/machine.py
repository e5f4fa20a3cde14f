"""The machine: what numbers were made with, and what a run asked of it beside what it was
charged."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import jax

import kdjax
from kdjax.budget.hardware import peak, peak_memory, utilisation
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import PARTS
from kdjax.training.run import CompiledPhase


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    device = jax.devices()[0]
    return {
        "kdjax": kdjax.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": f"{device.device_kind} x{jax.device_count()}",
    }


def hardware_use(
    compiled_phases: Sequence[CompiledPhase], ledger: Ledger, side_by_side: int
) -> dict[str, Any]:
    """What a run's steps did to the devices.

    Args:
        compiled_phases: its phases.
        ledger: its account.
        side_by_side: how many runs took their steps together, itself included.

    Returns:
        `model_flops`: of all its steps by price, charged or not; `hardware_flops`: what the devices
        did for them, None where XLA does not say; `devices` and `peak`: how many, and the most that
        one can do; `model_utilisation` and
        `hardware_utilisation`: their shares of that over the time the steps took; `side_by_side`:
        as given, that time is an even share; `program_bytes`: what the largest step, of all runs
        side by side, needs on a device, by the compiler, None where it does not say;
        `high_water_bytes` and `high_water_source`: the most memory in use in this process so far.
    """
    programs = [compiled_phase.program for compiled_phase in compiled_phases]
    layout = programs[0].layout
    most = peak(jax.local_devices()[0])
    seconds = ledger.seconds.get("compute", 0.0)
    done = [p.hardware_flops for p in programs]
    model = sum(ledger.spent[part] for part in PARTS)
    hardware = (
        None
        if None in done
        else sum(n * f for n, f in zip(ledger.phases, done, strict=True) if f is not None)
    )
    needed = [p.memory["peak"] for p in programs if p.memory is not None]
    high, source = peak_memory()

    def used(flops: int | None) -> float | None:
        return utilisation(flops, seconds, most, layout.devices) if flops and seconds else None

    return {
        "model_flops": model,
        "hardware_flops": hardware,
        "devices": layout.devices,
        "side_by_side": side_by_side,
        "peak": {
            "flops_per_second": most.flops_per_second,
            "dtype": most.dtype,
            "source": most.source,
        },
        "model_utilisation": used(model),
        "hardware_utilisation": used(hardware),
        "program_bytes": max(needed, default=None),
        "high_water_bytes": high,
        "high_water_source": source,
    }
