"""Rows of which there may be a million, kept in columns."""
