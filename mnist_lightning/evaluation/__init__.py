"""Arrays to figures of merit, to pictures, and to what a network makes of disturbed ones."""
