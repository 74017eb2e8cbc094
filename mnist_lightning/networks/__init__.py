"""The architectures, one file each, and functions that build, inspect and combine them."""
