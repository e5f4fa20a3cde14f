"""Contamination: which evaluation rows stand in the text that a model is trained on."""
