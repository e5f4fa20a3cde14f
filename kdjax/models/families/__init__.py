"""Families of models: their own settings, and the classes of transformers that store them.

`door` reads and writes config.json and tensors for all of them; every other file is a class.
"""
