"""Separation while the sound plays."""
