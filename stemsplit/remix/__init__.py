"""Stems mixed anew."""
