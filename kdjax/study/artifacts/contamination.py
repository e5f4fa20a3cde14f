"""A study's check for evaluation rows within its training text."""

from __future__ import annotations

from kdjax.config import Config
from kdjax.data.contamination.check import Contamination, check_contamination
from kdjax.data.contamination.rows import row_groups
from kdjax.data.corpus import Corpus
from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.report.contamination_table import in_words, line


def study_contamination(config: Config, corpus: Corpus, reporter: Reporter) -> Contamination | None:
    """Look for the rows of the recipe's tasks in its text, or read what was found before.

    Args:
        config: resolved recipe, with `evaluation.tasks` and `evaluation.contamination`.
        corpus: the prepared text; of a subset, all of its training split is looked at.
        reporter: shows how it goes on, and logs what was found in one line.

    Returns:
        What was found; None where there are no tasks, or the recipe wants none of it.

    Raises:
        InputError: more than `evaluation.contamination.share` was found under `refuse`, or the text
            could not be looked at.
    """
    settings = config.evaluation.contamination
    if settings.check == "off":
        return None
    groups = row_groups(config.evaluation)
    if not groups:
        return None
    reporter.stage("contamination: looking for the tasks' rows in the text")
    contamination = check_contamination(corpus, config.data.files, groups, reporter.status)
    reporter.log(f"{corpus.directory}: {line(contamination)}", once=True)
    if settings.check == "refuse":
        _refuse_contaminated_text(contamination, settings.share)
    return contamination


def _refuse_contaminated_text(contamination: Contamination, share: float) -> None:
    """Raise an InputError where more rows were found than may be, or nobody could look."""
    where = "evaluation.contamination.check is 'refuse'"
    if contamination.unchecked:
        raise InputError(
            f"{where} and the pretraining text was not looked at ({contamination.unchecked}), "
            "expected its sources, or 'report'"
        )
    above = contamination.above(share)
    if above:
        worst = max(above, key=lambda overlap: overlap.share)
        raise InputError(
            f"{where} and {in_words(worst)}, first {worst.examples[0]}; expected at most "
            f"evaluation.contamination.share, {share:.4g}, of the rows"
        )
