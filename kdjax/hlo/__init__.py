"""Compiled programs as text: what is in them, and how long they would take on a TPU."""
