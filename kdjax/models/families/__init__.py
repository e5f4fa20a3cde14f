"""Families of models: their own settings, and the classes of transformers that store them.

`transformers_classes` reads and writes config.json and tensors for all of them, `kdjax_format` for
models that transformers has no class of; most other files are a class.
"""
