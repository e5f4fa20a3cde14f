"""Rehearsals: a recipe's whole path, scaled down, on text of kdjax's own."""
