"""Measures of separation, and tables of them."""
