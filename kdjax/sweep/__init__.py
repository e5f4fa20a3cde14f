"""Sweeps: a study for every combination of some settings, and what they say together."""
