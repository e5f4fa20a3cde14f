"""Stored teacher outputs: what they consist of, writing and reading them."""
