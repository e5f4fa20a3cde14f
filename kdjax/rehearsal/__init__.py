"""Run a recipe's whole path at a small scale, on made-up text, before a machine is rented.

`kdjax rehearse`. It trains, unlike a dry run; nothing that it measures is a result.
"""
