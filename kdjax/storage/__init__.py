"""Files and places: whole or not written, JSON that is checked, paths, one writer of a place."""
