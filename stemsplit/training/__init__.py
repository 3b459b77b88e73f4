"""Training: songs, examples, the loop. Imported by nothing but the command line's `train`."""
