"""Files on disk and in remote storage, written atomically and by one program at a time."""
