"""The architectures, a file for each, and what builds, inspects and combines them."""
