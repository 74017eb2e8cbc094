"""A page to draw digits on, and the server behind it."""
