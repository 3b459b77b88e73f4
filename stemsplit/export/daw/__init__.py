"""Sessions for DAWs."""
