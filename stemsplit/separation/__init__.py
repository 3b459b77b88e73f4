"""What the engine requires of a separator, and separators built from networks."""
