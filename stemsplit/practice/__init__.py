"""Practice tracks: a song slower, in another key, in a loop, with a click and a count-in."""
