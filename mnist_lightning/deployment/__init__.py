"""Trained networks in use: exports, the web page and its server."""
