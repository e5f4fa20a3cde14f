"""`kdjax price`: what a step of each arm costs."""

import json

from kdjax.cli.command import Command, Options, add_recipe_and_json


def run(options: Options) -> None:
    """Print the prices."""
    from kdjax.arms.export_note import export_note
    from kdjax.dry_run.price_report import price_table
    from kdjax.dry_run.recipe_prices import prices
    from kdjax.dry_run.task_costs import add_task_costs
    from kdjax.progress import Reporter
    from kdjax.study.artifacts.input_checks import missing_input
    from kdjax.sweep.cells import shares_trunk
    from kdjax.sweep.trunk import trunk_cost

    # The same rows either way.
    with Reporter() as reporter:
        if not options.json:
            reporter.stage("counting what a step of each arm costs")
        rows = prices(options.config)
        if options.config.evaluation.task_results and not options.json:
            reporter.stage("counting what measuring on tasks costs")
        add_task_costs(options.config, rows)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        price_table(options.config, rows)
        if shares_trunk(options.config) and (cost := trunk_cost(options.config)):
            print(cost.line())
        if note := export_note(options.config):
            print(note)
        # Prices need no inputs; a study does, and this is the time to hear of it.
        if problem := missing_input(options.config):
            print(problem)


COMMAND = Command(
    "price",
    "What one step of each arm costs, and how far the budget reaches. Needs no weights and no "
    "data.",
    run,
    usage="RECIPE [--json] [--SETTING VALUE ...]",
    add_arguments=add_recipe_and_json,
)
