"""Weights and their cards, as package data."""
