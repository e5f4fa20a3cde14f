"""Forecast, from the runs of a sweep, what each arm would reach at budgets nobody has spent.

`kdjax plan`. It trains nothing; the mathematics of the fits is in `forecast`.
"""
