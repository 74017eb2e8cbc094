"""The command `report`, and what it knows of a run."""
