"""Live separation."""
