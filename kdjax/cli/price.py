"""`kdjax price`: what a step of each arm costs."""

import json

from kdjax.cli.command import Command, Options, add_recipe_and_json


def run(options: Options) -> None:
    """Print the prices."""
    from kdjax.dry_run.price_table import price_table
    from kdjax.dry_run.pricing import prices
    from kdjax.dry_run.task_costs import add_task_costs

    # The same rows either way.
    rows = prices(options.config)
    add_task_costs(options.config, rows)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        price_table(options.config, rows)


COMMAND = Command(
    "price",
    "What one step of each arm costs, and how far the budget reaches. Needs no weights and no "
    "data.",
    run,
    usage="CONFIG [--json] [--SETTING VALUE ...]",
    add_arguments=add_recipe_and_json,
)
