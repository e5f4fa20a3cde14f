"""Labelled tasks: rows, splits, columns."""
