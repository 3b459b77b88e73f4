"""Reading and writing sound in files and pipes, without any model."""
