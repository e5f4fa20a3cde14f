"""`kdjax rehearse`: a recipe's whole path, scaled down, before a machine is rented for it."""

import argparse

from kdjax.cli.command import Command, Options, add_recipe, path_argument

USAGE = (
    "RECIPE [--out DIR] [--price-per-chip-hour CHIP=PRICE ...] [--utilisation CHIP=SHARE ...] "
    "[--compile] [--SETTING VALUE ...]"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE, --out, and what is estimated."""
    add_recipe(parser)
    parser.add_argument(
        "--out",
        dest="directory",
        type=path_argument("--out"),
        metavar="DIR",
        help="keep all files here; else they are removed",
    )
    parser.add_argument(
        "--price-per-chip-hour",
        nargs="+",
        default=[],
        metavar="CHIP=PRICE",
        help="of v5e, v6e or v5p, for what the recipe itself would cost",
    )
    parser.add_argument(
        "--utilisation",
        nargs="+",
        default=[],
        metavar="CHIP=SHARE",
        help="share of the chip's peak that hours are estimated by",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="estimate by the TPU compiler (libtpu) instead; takes minutes an arm",
    )


def run(options: Options) -> None:
    """Rehearse the recipe, and print what was run, what was scaled, and what the recipe takes.

    Raises:
        InputError: an option that cannot be, or anything wrong with the recipe or its rehearsal.
    """
    import shutil
    import tempfile
    from pathlib import Path

    from kdjax.hlo import aot

    # A rehearsal is of the processor; accelerators are left to whoever uses them.
    aot.forbid_accelerators()
    from kdjax.progress import Reporter
    from kdjax.rehearsal import tpu_estimate
    from kdjax.rehearsal.rehearse import lines_of, rehearse

    # What is wrong with the command line is found before minutes are spent.
    prices = tpu_estimate.parse_by_chip(
        options.price_per_chip_hour, "--price-per-chip-hour", 0, 1e6
    )
    shares = tpu_estimate.parse_by_chip(options.utilisation, "--utilisation", 0, 1)
    if options.compile:
        aot.slice_of(tpu_estimate.TOPOLOGIES["v5e"])
    directory = options.directory or Path(tempfile.mkdtemp(prefix="kdjax-rehearsal-"))
    with Reporter() as reporter:
        rehearsed = rehearse(options.config, directory, reporter)
        reporter.stage("rehearsal: estimating what the recipe itself takes")
        work = tpu_estimate.work_of(options.config)
        if options.compile:
            estimates = tpu_estimate.compiled_estimates(options.config, work, prices)
        else:
            estimates = tpu_estimate.stated_estimates(work, shares, prices)
    # After a failure the files stay, whose logs its line names.
    if options.directory is None:
        shutil.rmtree(directory, ignore_errors=True)
    for line in lines_of(options.config, rehearsed):
        print(line)
    print(f"rehearsed in {rehearsed.seconds:.0f} s; the audit found no difference")
    for line in tpu_estimate.lines_of(work, estimates):
        print(line)


COMMAND = Command(
    "rehearse",
    "A recipe's whole path, scaled down, on text of its own, with a run that is killed and goes "
    "on; and what the recipe itself would take on TPUs.",
    run,
    usage=USAGE,
    add_arguments=add_arguments,
)
