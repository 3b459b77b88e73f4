"""Splitting many tracks: discovery, plan, and runners for this machine and for Ray clusters."""
