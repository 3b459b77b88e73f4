"""Practice tracks: songs with another tempo or key, loops, a click track and a count-in."""
