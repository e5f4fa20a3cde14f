"""Tokenizers: found, trained and read; their special tokens, and what transformers is told."""
