"""Beginnings of names that stand where a path may stand, and are neither paths nor URLs."""

from __future__ import annotations

NAME_PREFIXES = ("hf:", "package:", "tfds:")
"""Each means the same on every machine, and what stands behind it may have an @ of its own. What
reads such a name resolves it: `kdjax.storage.hub`, or `kdjax.text.sources`."""
