"""Teachers in training: where their features come from, their heads, pretraining, files."""
