"""Evaluation rows that stand in training text, in sentences and as a table."""

from __future__ import annotations

from kdjax.data.contamination.check import Contamination, Overlap
from kdjax.report import numbers
from kdjax.report.phrases import listed, say


def line(contamination: Contamination) -> str:
    """Return the line that a command prints: what was found, and which tasks are clean."""
    parts = []
    if contamination.unchecked:
        parts.append(say("contamination_unchecked", reason=contamination.unchecked))
    with_rows = [overlap for overlap in contamination.overlaps if overlap.found]
    parts += [in_words(overlap) for overlap in with_rows]
    # A result has two uses; where only one is clean, nothing is said of it.
    in_text = [overlap.result for overlap in contamination.overlaps if not overlap.trained]
    with_any = {overlap.result for overlap in with_rows if not overlap.trained}
    clean = [result for result in dict.fromkeys(in_text) if result not in with_any]
    if clean:
        parts.append(say("contamination_none", results=listed(clean)))
    return say("contamination", found="; ".join(parts))


def in_words(overlap: Overlap) -> str:
    """Return the sentence on a result's rows that stand in training text."""
    return say(
        "contamination_found",
        found=numbers.count(overlap.found),
        rows=numbers.count(overlap.rows),
        use=overlap.use,
        result=overlap.result,
        share=f"{overlap.share:.1%}",
        place=_place(overlap),
    )


def notes(contamination: Contamination | None, share: float) -> list[str]:
    """Return a note for each overlap that is more than a share, and on text not looked at.

    Args:
        contamination: what was found; None where nothing was looked for.
        share: `evaluation.contamination.share`.
    """
    if contamination is None:
        return []
    sentences = []
    if contamination.unchecked:
        reason = contamination.unchecked
        sentences.append(say("contamination_unchecked_note", reason=reason))
    for overlap in contamination.above(share):
        sentences.append(say("contamination_note", found=in_words(overlap)))
    return sentences


def rows(contamination: Contamination | None) -> list[dict[str, str]]:
    """Return the rows of the report's table, as text; none where nobody looked."""
    if contamination is None:
        return []
    table = []
    for overlap in contamination.overlaps:
        table.append(
            {
                "name": f"{overlap.result}, {overlap.use}",
                "place": _place(overlap),
                "found": numbers.count(overlap.found),
                "rows": numbers.count(overlap.rows),
                "share": f"{overlap.share:.1%}",
                "examples": "; ".join(overlap.examples),
            }
        )
    return table


def _place(overlap: Overlap) -> str:
    """Return the text that an overlap's rows stand in."""
    if overlap.trained:
        return say("contamination_task", task=overlap.trained)
    return say("contamination_text")
