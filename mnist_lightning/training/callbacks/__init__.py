"""The callbacks of a run: each does one thing."""
