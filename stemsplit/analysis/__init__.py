"""What a recording is like: levels and bandwidth, beats and key."""
