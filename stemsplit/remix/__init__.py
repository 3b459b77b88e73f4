"""Remixing stems."""
