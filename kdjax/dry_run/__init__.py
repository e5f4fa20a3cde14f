"""Say what a recipe would cost and whether its steps compile, without running anything.

`kdjax price`, `kdjax compile` and `kdjax arms`: from shapes alone, with neither weights nor data.
"""
