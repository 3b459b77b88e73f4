"""Stems in the files of other programs."""
