"""Many tracks: which, where to, and by whom."""
