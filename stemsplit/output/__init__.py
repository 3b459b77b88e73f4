"""Output paths, and records of the files written."""
