"""Where stems go, and a record of what was written."""
