"""Tests of the arms of a recipe and their charges."""
