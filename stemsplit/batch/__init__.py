"""Many tracks: discovery, plan, and runners on this machine or on a Ray cluster."""
