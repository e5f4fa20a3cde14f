"""Devices: the mesh and what lives where on it."""
