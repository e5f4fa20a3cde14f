"""Tests of what the command line says: help, settings, starters, completion."""
