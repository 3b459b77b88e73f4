"""Evaluation: measures of separation quality, and score tables."""
