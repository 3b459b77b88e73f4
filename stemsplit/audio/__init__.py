"""Sound in and out of files and pipes, without any model."""
