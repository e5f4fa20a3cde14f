"""Run a study for every combination of some settings, and say what they show together.

`kdjax sweep`. It shows the verdicts under every combination and chooses none, unlike tuning.
"""
