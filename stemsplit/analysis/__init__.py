"""Analysis of recordings: levels, bandwidth, beats, key, chords, sections."""
