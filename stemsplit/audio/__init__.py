"""Reading and writing audio in files and pipes, without any model."""
