"""Sound in and out of files and pipes; knows no model."""
