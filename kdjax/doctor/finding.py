"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem"]
"""`problem`: kdjax, or the recipe that was named, does not run like this. `note`: only some recipes
need it, or it costs time."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at, a word or two.
        state: whether it is as it should be.
        found: what there is.
        advice: what to do; empty: nothing.
    """

    subject: str
    state: State
    found: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.state:7}  {self.subject:18}  {self.found}{advice}"
