"""Stores move bytes. Named by URL, imported on use, so that a folder needs no Google library."""
