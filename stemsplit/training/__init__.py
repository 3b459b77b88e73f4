"""Training: songs, examples, and the loop. Only `stemsplit train` imports it."""
