"""Songs with known stems."""
