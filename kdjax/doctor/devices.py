"""JAX, the packages that must fit it, and the devices that it finds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from kdjax.doctor.finding import Finding

SECONDS = 180
"""Time limit of starting JAX's devices. A TPU that another process has keeps one waiting for ever;
a busy machine that has not run JAX before takes a minute or two."""
PLUGINS = ("jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt", "jax-cuda13-plugin", "jax-cuda13-pjrt")
"""Packages whose version has to be jax's own."""
_PROBE = """
import json, jax
devices = jax.devices()
stats = devices[0].memory_stats() or {}
print(json.dumps({
    "platform": devices[0].platform,
    "kind": devices[0].device_kind,
    "count": len(devices),
    "memory": stats.get("bytes_limit"),
}))
"""
"""Program that says what devices JAX finds."""
_GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl")
_TPU_FILES = ("/dev/accel0", "/dev/vfio/0")


def versions() -> Iterator[Finding]:
    """Yield whether JAX and what is compiled for it are of one version."""
    try:
        jax = metadata.version("jax")
    except metadata.PackageNotFoundError:
        return  # the list of packages says so
    installed = {}
    for name in (*PLUGINS, "libtpu"):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    for name in PLUGINS:
        version = installed.get(name, jax)
        if version != jax:
            advice = f"pip install {name}=={jax}"
            yield Finding(name, "problem", f"is {version} beside jax {jax}", advice)
    others = [f"{name} {version}" for name, version in installed.items()]
    yield Finding("JAX", "ok", ", ".join([f"jax {jax}", *others]))


def devices(program: str = _PROBE, seconds: float = SECONDS) -> Iterator[Finding]:
    """Yield the devices that JAX finds, asked in a process of its own, and those it passes over.

    Args:
        program: Python program that prints them.
        seconds: time limit.
    """
    try:
        process = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        advice = "end the process that has the device, or set JAX_PLATFORMS=cpu; or wait, if busy"
        yield Finding("devices", "problem", f"JAX does not start within {seconds:g} s", advice)
        return
    if process.returncode != 0:
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        last = lines[-1] if lines else f"status {process.returncode}"
        yield Finding("devices", "problem", f"JAX does not start: {last:.200}", _plugin_advice())
        return
    device: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    memory = f", {device['memory'] / 2**30:.0f} GiB each" if device["memory"] else ""
    text = f"{device['count']} x {device['kind']} ({device['platform']}){memory}"
    yield Finding("devices", "ok", text)
    if device["platform"] == "cpu":
        yield from _passed_over()


def _passed_over() -> Iterator[Finding]:
    """Yield accelerators that the machine seems to have, where JAX uses the CPU."""
    if os.environ.get("JAX_PLATFORMS"):
        chosen = os.environ["JAX_PLATFORMS"]
        yield Finding("devices", "note", f"JAX_PLATFORMS is {chosen!r}: no others are looked for")
        return
    for name, files, extra in (("a GPU", _GPU_FILES, "gpu"), ("a TPU", _TPU_FILES, "tpu")):
        has_tool = extra == "gpu" and shutil.which("nvidia-smi") is not None
        if has_tool or any(Path(file).exists() for file in files):
            advice = f"pip install 'kdjax[{extra}]'"
            yield Finding("devices", "problem", f"{name} is here that JAX does not use", advice)


def _plugin_advice() -> str:
    """Return advice for a machine on which JAX does not start."""
    return "`python -c 'import jax; jax.devices()'` shows all of it; JAX_PLATFORMS=cpu does without"
