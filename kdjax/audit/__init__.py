"""Recounting a finished study: prices, sums and verdicts held against what its files say."""
