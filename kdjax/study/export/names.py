"""Names as a card may publish them: of text, teachers, tasks and licences."""

from __future__ import annotations

import re
from pathlib import Path

from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.storage import hub
from kdjax.storage.prefixes import NAME_PREFIXES
from kdjax.storage.secrets import without_user

UNKNOWN_LICENSE = "unknown"
"""The Hub's identifier of a licence that nobody has named."""
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_PUBLIC = (*NAME_PREFIXES, "https://", "s3://", "gs://")
"""Beginnings of names that mean the same on every machine."""


def public_name(place: str) -> str:
    """Return the name of a place without the folders of this machine.

    Args:
        place: a path, a URL, or a name on the Hub.
    """
    if place.startswith(_PUBLIC):
        return without_user(place)
    return Path(place).name or place


def text_names(config: Config) -> list[str]:
    """Return the names of a recipe's text, each once."""
    files = config.data.files
    places = [files] if isinstance(files, str) else list(files)
    if config.data.prepared:
        places = [str(config.data.prepared)]
    return list(dict.fromkeys(public_name(place) for place in places))


def hub_datasets(config: Config) -> list[str]:
    """Return the data sets of the Hub that a recipe's text is from, as OWNER/NAME."""
    names = []
    for name in text_names(config):
        if name.startswith(hub.FILE_PREFIX):
            parsed = hub.parse(name)
            if parsed.kind == "dataset":
                names.append(parsed.repo_id)
    return list(dict.fromkeys(names))


def check_license(name: str) -> str:
    """Return a licence as a card's head has it; that of nobody is unknown.

    Args:
        name: an identifier of the Hub, such as apache-2.0; empty: nobody has said one.

    Raises:
        InputError: it has characters that no identifier has.
    """
    if not name:
        return UNKNOWN_LICENSE
    if not _LICENSE.fullmatch(name):
        raise InputError(
            f"--license is {name!r:.80}, expected an identifier of the Hub, such as apache-2.0, "
            "cc-by-sa-4.0 or other"
        )
    return name
