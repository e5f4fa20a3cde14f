"""`kdjax doctor`: what is missing on this machine, and what to do."""

import argparse
import dataclasses
import json

from kdjax.cli.command import Command, Options, add_json, path_argument
from kdjax.errors import InputError, counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE and --out, which may be left out, and --json."""
    parser.add_argument(
        "config", metavar="RECIPE", nargs="?", help="a recipe whose inputs are looked at, too"
    )
    parser.add_argument(
        "--out", type=path_argument("--out"), metavar="DIR", help="where results shall be written"
    )
    add_json(parser)


def run(options: Options) -> None:
    """Print a line for each thing that was looked at, as soon as it was.

    Raises:
        InputError: something that is needed is missing.
    """
    from kdjax.doctor.examine import examine

    findings = []
    config = options.config if options.names_recipe else None
    for finding in examine(config, options.out):
        findings.append(finding)
        if not options.json:
            print(finding, flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    problems = [finding.subject for finding in findings if finding.state == "problem"]
    if problems:
        raise InputError(f"doctor: {counted(len(problems), 'problem')}: {', '.join(problems)}")


COMMAND = Command(
    "doctor",
    "What is missing or does not fit on this machine, and for a recipe, and what to do about it.",
    run,
    usage="[RECIPE] [--out DIR] [--json] [--SETTING VALUE ...]",
    add_arguments=add_arguments,
    needs_jax=False,
)
