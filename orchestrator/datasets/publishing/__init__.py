"""Dataset versions: planned, published, read."""
