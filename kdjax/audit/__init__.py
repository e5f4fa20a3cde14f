"""Recount a finished study: hold its prices, sums and verdicts against what its files say.

`kdjax audit`. It trains nothing and changes nothing; it reports differences.
"""
