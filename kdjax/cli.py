"""The `kdjax` command: thin. Each command reads a recipe and calls one function."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import kdjax
from kdjax import loglines, recipes
from kdjax.clock import CLOCK
from kdjax.config import Config, TrainConfig
from kdjax.errors import InputError, Stopped
from kdjax.parallel.preemption import PREEMPTION

Command = Callable[[argparse.Namespace, Config], None]


def _compare(options: argparse.Namespace, config: Config) -> None:
    from kdjax.study.compare import compare

    compare(config, options.out, options.begun)


def _sweep(options: argparse.Namespace, config: Config) -> None:
    from kdjax.sweep.sweep import sweep

    sweep(config, options.out)


def _tune(options: argparse.Namespace, config: Config) -> None:
    from kdjax.tuning.tune import tune

    tune(config, options.out)


def _plan(options: argparse.Namespace, config: Config) -> None:
    from kdjax.plan.plan import plan

    plan(config, options.out)


def _audit(options: argparse.Namespace, config: Config) -> None:
    from kdjax.audit.audit import audit_command

    audit_command(options.directory)


def _price(options: argparse.Namespace, config: Config) -> None:
    from kdjax.dry_run.pricing import price_table, prices

    rows = prices(config)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        price_table(config, rows)


def _compile(options: argparse.Namespace, config: Config) -> None:
    from kdjax.hlo import aot

    aot.offline()
    from kdjax.dry_run.compiling import check_fits, compiled, compiled_table

    found = compiled(config, aot.slice_of(options.topology), options.arm, options.top)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        compiled_table(found, len(config.seeds))
    check_fits(found)


def _prepare(options: argparse.Namespace, config: Config) -> None:
    from kdjax.study.corpus import prepare_corpus

    prepare_corpus(config, options.out, options.others if options.beam else None)


def _tokenizer(options: argparse.Namespace, config: Config) -> None:
    from kdjax.study.tokenizer import prepare_tokenizer

    prepare_tokenizer(config, options.out)


def _teacher(options: argparse.Namespace, config: Config) -> None:
    from kdjax.study.teacher import prepare_teacher

    prepare_teacher(config, options.out)


def _cache(options: argparse.Namespace, config: Config) -> None:
    from kdjax.study.stored import prepare_cache

    prepare_cache(config, options.out)


def _arms(options: argparse.Namespace, config: Config) -> None:
    from kdjax.dry_run.named_arms import arms_table, listed

    if options.json:
        print(json.dumps(listed(config), indent=1))
    else:
        arms_table(config)


def _train(options: argparse.Namespace, config: Config) -> None:
    from kdjax.study.compare import train_one, train_part
    from kdjax.study.parts import Part

    whole_run = options.arm is not None and options.seed is not None
    if options.part is not None and options.arm is None and options.seed is None:
        train_part(config, options.out, Part.parse(options.part))
    elif options.part is None and whole_run:
        train_one(config, options.out, options.arm, options.seed)
    else:
        raise InputError("kdjax train: expected either --arm and --seed, or --part")


def _merge(options: argparse.Namespace, config: Config) -> None:
    from kdjax.study.parts import merge_command

    merge_command(options.parts, options.out)


COMMANDS: dict[str, tuple[Command, str]] = {
    "compare": (
        _compare,
        "Train every arm under every seed within the budget, evaluate, and write the report.",
    ),
    "sweep": (
        _sweep,
        "A study for every combination of values in the recipe's `sweep`: budgets, sizes, any "
        "setting.",
    ),
    "tune": (
        _tune,
        "The same number of trials for every arm; writes a recipe with the best settings found.",
    ),
    "plan": (
        _plan,
        "What each arm would reach at budgets nobody has spent, from published laws and a pilot's "
        "runs.",
    ),
    "audit": (
        _audit,
        "Recount every price and every sum of a finished study or sweep, and report any "
        "difference.",
    ),
    "price": (
        _price,
        "What one step of each arm costs, and how far the budget reaches. Needs no weights and no "
        "data.",
    ),
    "compile": (
        _compile,
        "Compile every arm's step for a TPU slice without one: memory, collectives, estimated "
        "time and utilisation.",
    ),
    "prepare": (_prepare, "Turn raw text into packed, sharded sequences."),
    "tokenizer": (
        _tokenizer,
        "Train the recipe's tokenizer on its text, for `data.tokenizer` of any recipe.",
    ),
    "teacher": (
        _teacher,
        "Train a teacher from scratch, or fit an MLM head on an encoder; saved with a card that "
        "says its cost.",
    ),
    "cache": (
        _cache,
        "Run the teacher once over all mask views and store what the recipe's arms need of it.",
    ),
    "arms": (
        _arms,
        "The named arms: what each does, asks of the teacher and costs. Without CONFIG, at the "
        "paper's sizes.",
    ),
    "train": (
        _train,
        "One arm under one seed of a study, or one part of its runs; `compare` with the same "
        "--out takes it up.",
    ),
    "merge": (
        _merge,
        "The finished runs of a study's parts in one directory; `compare` with the same --out "
        "takes it up.",
    ),
}


PRINTS = ("price", "compile", "arms")
"""Commands that print and write nothing."""
TOGETHER = ("compare", "sweep", "tune", "train", "teacher")
"""Commands that several processes run as one; of the others, the first process runs what there is
to run."""
NO_RECIPE = ("audit", "merge")
"""Commands that take no recipe."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How the system says that a disk is full, or a quota or a limit on files used up."""
PAPER = Config(train=TrainConfig(batch_size=1024))
"""The sizes of arXiv 2404.19319: 6 x 768, BERT-base as teacher, 1024 x 128 tokens, 20 masked
slots."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits.

    0: done. 2: bad input, or no room on the disk. 75: told to stop by SIGTERM. 130: interrupted.
    Each but the first with one line that says it; after 75 and 130 the same command goes on. 1: a
    bug, with a traceback.
    """
    begun = CLOCK.mark()
    words = list(sys.argv[1:] if arguments is None else arguments)
    _quiet()
    loglines.claim_logging()
    try:
        words, others = _split_others(words)
        plain, overrides = split_overrides(words)
        options = _parser().parse_args(plain, argparse.Namespace(others=others, begun=begun))
        if others and not getattr(options, "beam", False):
            raise InputError(
                f"command line: -- {others[0]}: expected such options of `kdjax prepare --beam` "
                "alone"
            )
        if overrides and not options.config:
            raise InputError(
                f"command line: {overrides[0]} changes a recipe, expected CONFIG before it"
            )
        config = recipes.load(options.config, overrides) if options.config else PAPER
        _keep_memory()
        if _joined(options):
            _keep_compiled()
            with PREEMPTION.sigterm_handler():
                COMMANDS[options.command][0](options, config)
    except Stopped as e:
        loglines.warn(str(e))
        sys.exit(e.STATUS)
    except InputError as e:
        loglines.warn(str(e))
        _end(2)
    except OSError as e:
        if e.errno not in NO_ROOM:
            raise
        where = f"{e.filename}: " if e.filename else ""
        loglines.warn(f"{where}{e.strerror}; make room, and the same command goes on")
        _end(2)
    except KeyboardInterrupt:
        loglines.warn("interrupted; the same command goes on from the last checkpoint")
        _end(130)
    except Exception as e:
        if not _other_gone(e):
            raise
        loglines.warn(
            f"another process is gone, or the way to it ({' '.join(str(e).split())[:200]}); "
            "the same command on all hosts goes on from the last checkpoint"
        )
        _end(Stopped.STATUS)
    sys.exit(0)


def _end(status: int) -> NoReturn:
    """Exits early. A process that others wait for does so at once: a polite end would wait for them
    in turn."""
    if os.environ.get("KDJAX_DISTRIBUTED"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _other_gone(error: Exception) -> bool:
    if not os.environ.get("KDJAX_DISTRIBUTED"):
        return False
    from kdjax.parallel import hosts

    return hosts.peer_lost(error)


def _joined(options: argparse.Namespace) -> bool:
    """Joins the other processes where there are any; whether this one takes part in the command."""
    if not os.environ.get("KDJAX_DISTRIBUTED"):
        return True
    from kdjax.parallel import hosts

    hosts.start()
    if options.command in TOGETHER:
        options.out = hosts.process_dir(options.out)
        return True
    return hosts.is_main_process()


def _keep_memory() -> None:
    from kdjax import memory

    memory.configure_malloc()


def _keep_compiled() -> None:
    from kdjax import compiled

    compiled.enable_compilation_cache()


def _split_others(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts a command line into its own words and those after `--`, which are another program's."""
    own = list(itertools.takewhile(lambda word: word != "--", words))
    return own, list(words[len(own) + 1 :])


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Parts a command line into its own words and the overrides of the recipe: `--section.setting
    VALUE`."""
    sections = {field.name for field in dataclasses.fields(Config)}
    plain: list[str] = []
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        name = word[2:].split("=")[0] if word.startswith("--") else ""
        if "." not in name and name.removesuffix("+") not in sections:
            plain.append(word)
            continue
        overrides.append(word)
        if "=" not in word:
            value = next(rest, None)
            if value is None:
                raise InputError(f"command line: {word} has no value, expected one after it")
            overrides.append(value)
    return plain, overrides


class _Parser(argparse.ArgumentParser):
    """Usage errors are bad input like any other: one line, status 2.

    Attributes:
        takes_recipe: whether the help ends with every setting of a recipe.
    """

    takes_recipe = False

    def format_help(self) -> str:
        """Return the help; settings are looked up only now, since that takes longer than all other
        parsing."""
        if self.takes_recipe:
            self.epilog = recipes.help_text()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kdjax",
        description="Distil or pretrain? Masked language models compared under one exact compute "
        "budget.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kdjax {kdjax.__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for name, (_, summary) in COMMANDS.items():
        takes = {
            "audit": "DIR",
            "merge": "PART ... --out DIR",
            "arms": "[CONFIG]",
            "compile": "CONFIG --topology CHIP:AxB [--arm NAME ...] [--top N]",
        }.get(name, "CONFIG")
        rest = f" {'[--json]' if name in PRINTS else '--out DIR'} [--SETTING VALUE ...]"
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            allow_abbrev=False,
            usage=f"kdjax {name} {takes}{'' if name in NO_RECIPE else rest}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.takes_recipe = name not in NO_RECIPE
        if name == "merge":
            command.add_argument(
                "parts", type=Path, nargs="+", metavar="PART", help="directory of a part"
            )
            command.add_argument(
                "--out", type=Path, required=True, metavar="DIR", help="output directory"
            )
            command.set_defaults(config=None)
            continue
        if name == "audit":
            command.add_argument(
                "directory", type=Path, metavar="DIR", help="of a study or a sweep"
            )
            command.set_defaults(config=None)
            continue
        count = "?" if name == "arms" else None
        command.add_argument(
            "config", metavar="CONFIG", help="the recipe, a YAML file", nargs=count
        )
        if name in PRINTS:
            command.add_argument(
                "--json", action="store_true", help="print JSON instead of a table"
            )
        else:
            command.add_argument(
                "--out", type=Path, required=True, metavar="DIR", help="output directory"
            )
        if name == "compile":
            command.add_argument(
                "--topology",
                required=True,
                metavar="CHIP:AxB",
                help="of the slice: v5e:2x4, v6e:4x4, v5p:2x2x1...",
            )
            command.add_argument(
                "--arm", nargs="+", default=[], metavar="NAME", help="arms of the recipe; else all"
            )
            command.add_argument(
                "--top", type=int, default=0, metavar="N", help="list a step's N longest operations"
            )
        if name == "prepare":
            command.add_argument(
                "--beam",
                action="store_true",
                help="by Apache Beam; its own options follow after --",
            )
        if name == "train":
            command.add_argument("--arm", help="which arm of the recipe")
            command.add_argument("--seed", type=int, help="which seed")
            command.add_argument(
                "--part", metavar="I/N", help="in their place: the I-th of N parts of all runs"
            )
    return parser


def _quiet() -> None:
    """Fewer lines from XLA's and TensorFlow's C++ logs; errors stay."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
