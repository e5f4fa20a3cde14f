"""Checkpoints of a run: when it saves, how they are stored, what happens if they cannot be."""
