"""Procedural microscopy: scenes drawn from a seed, with the truth of every pixel."""
