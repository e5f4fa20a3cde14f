"""Recipes: read and checked, changed by overrides, written; what each setting means.

`reading` is what others call; the other files are its parts, the list of settings, and the recipes
that come with kdjax.
"""

from kdjax.recipes.reading import changed, dump, from_dict, load, parser

__all__ = ["changed", "dump", "from_dict", "load", "parser"]
