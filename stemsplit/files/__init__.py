"""Files on disk or in remote storage: written atomically, by one program at a time."""
