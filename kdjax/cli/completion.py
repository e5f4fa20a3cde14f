"""`kdjax completion`: what a shell needs to complete kdjax's commands and settings."""

import argparse

from kdjax.cli.command import Command, Options

SHELLS = ("bash", "zsh", "tcsh")
BASH_HEAD = """# Completion of kdjax for bash, made by shtab. For new shells:
#   kdjax completion bash > ~/.local/share/bash-completion/completions/kdjax
"""
OPTIONS_OF_PATHS = ("config", "file", "run", "parts", "directory", "glue")
"""Arguments, by the names of their values, that are paths of files or directories."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add SHELL."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(options: Options) -> None:
    """Print the script for the shell."""
    import shtab

    from kdjax.recipes.settings import settings
    from kdjax.recipes.starters import starters

    # shtab reads what a parser has. The parser of this process has no use for settings: overrides
    # are read by their own rules.
    (subparsers,) = (action for action in options.parser._actions if hasattr(action, "add_parser"))
    for name, subparser in subparsers.choices.items():
        for action in subparser._actions:
            if action.dest == "out":
                action.complete = shtab.DIRECTORY
            elif action.dest in OPTIONS_OF_PATHS:
                action.complete = shtab.FILE
            elif (name, action.dest) == ("init", "name"):
                action.choices = list(starters())
        if subparser.settings is None:
            continue
        for setting in settings():
            if "NAME" in setting.name or ".N." in setting.name:
                continue
            subparser.add_argument(
                f"--{setting.name}", choices=setting.choices or None, help=setting.summary
            )
    script = shtab.complete(options.parser, options.shell)
    if options.shell == "bash":
        # Its head names another place than kdjax's documents do.
        script = f"{BASH_HEAD}\n{_without_head(script)}"
    print(script)


def _without_head(script: str) -> str:
    """Return a script without the comments that it begins with."""
    lines = script.splitlines()
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        del lines[0]
    return "\n".join(lines)


COMMAND = Command(
    "completion",
    "Print a script by which bash, zsh or tcsh complete commands, options and settings.",
    run,
    usage="bash|zsh|tcsh",
    add_arguments=add_arguments,
    settings=None,
    needs_jax=False,
)
