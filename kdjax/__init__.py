"""kdjax: distil or pretrain? Masked language models compared under one exact compute budget."""

__version__ = "0.1.0"
