"""Find each arm's own settings by trials: the same number, of the same budget, for every arm.

`kdjax tune`. Its trials run on seeds that the comparison does not use.
"""
