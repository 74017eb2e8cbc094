"""From arrays to figures of merit (metrics), to pictures (plots), to files (report)."""
