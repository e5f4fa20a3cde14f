"""Tests of what `kdjax doctor` finds."""
