"""Python, the packages that kdjax requires, its extras, and packages that carry data."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from kdjax.doctor.finding import Finding
from kdjax.recipes.starters import REQUIREMENTS, pinned_packages, starters_reading

EXTRAS = {
    "tpu": "TPUs, and `kdjax compile`",
    "gpu": "NVIDIA's GPUs",
    "convert": "tokenizers that are no tokenizer.json",
    "tfds": "`tfds:` data sets, and GLUE as TFDS prepared it",
    "parquet": "text and tasks in .parquet",
    "zstd": "text in .zst",
    "http": "text at https://",
    "gcs": "text and checkpoints at gs://",
    "s3": "text at s3://",
    "beam": "`kdjax prepare --beam`",
    "sentencepiece": "training Unigram tokenizers",
    "wandb": "records at Weights & Biases",
    "mlflow": "records at MLflow",
}
"""Extras of users and what each is for."""


def python() -> Finding:
    """Return the version of Python; an older one would not have come this far."""
    system = f"{platform.system()} {platform.machine()}"
    return Finding("Python", "ok", f"{platform.python_version()}, {system}")


def requirements() -> list[Finding]:
    """Return a finding for each required package at fault; one alone where all are there."""
    try:
        required = metadata.requires("kdjax") or []
    except metadata.PackageNotFoundError:
        advice = "pip install kdjax, or pip install -e . in a checkout"
        return [Finding("packages", "problem", "kdjax is not installed, only imported", advice)]
    always = [Requirement(text) for text in required if not _is_of_an_extra(text)]
    problems = []
    for requirement in always:
        problem = unmet(requirement)
        if problem:
            problems.append(
                Finding(requirement.name, "problem", problem, f"pip install '{requirement}'")
            )
    if problems:
        return problems
    return [Finding("packages", "ok", f"all {len(always)} that kdjax requires")]


def extras() -> Iterator[Finding]:
    """Yield for each extra whether its packages are there, and what it is for."""
    for extra, purpose in EXTRAS.items():
        missing = []
        for requirement in _of_extra("kdjax", extra):
            problem = unmet(requirement)
            if problem:
                missing.append(f"{requirement.name} {problem}")
        subject = f"extra {extra}"
        if missing:
            advice = f"for {purpose}: pip install 'kdjax[{extra}]'"
            yield Finding(subject, "note", ", ".join(missing), advice)
        else:
            yield Finding(subject, "ok", f"for {purpose}")


def data_packages() -> Iterator[Finding]:
    """Yield whether the packages that carry text and models of kdjax's recipes are there."""
    for file in REQUIREMENTS:
        for name, version in pinned_packages(file).items():
            problem = unmet(Requirement(f"{name}=={version}"))
            if problem:
                names = starters_reading(name)
                advice = (
                    f"for the recipes {', '.join(names)}: `kdjax init {names[0]}` says how to "
                    "install it"
                )
                yield Finding("data package", "note", f"{name} {problem}", advice)
            else:
                yield Finding("data package", "ok", f"{name} {version}")


def unmet(requirement: Requirement) -> str:
    """Return the fault of an installed package; empty where it is as required."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"is {version}, expected {requirement.specifier}"


def _is_of_an_extra(text: str) -> bool:
    """Return whether a requirement holds for an extra alone, or not for this Python."""
    marker = Requirement(text).marker
    return marker is not None and not marker.evaluate({"extra": ""})


def _of_extra(package: str, extra: str) -> Iterator[Requirement]:
    """Yield the requirements of a package's extra, and those of the extras that these name.

    Of a package that is not installed nothing is known.
    """
    try:
        required = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return
    for text in required:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or not _is_of_an_extra(text) or not marker.evaluate({"extra": extra}):
            continue
        if requirement.name != package:
            yield requirement
        for inner in sorted(requirement.extras):
            yield from _of_extra(requirement.name, inner)
