"""Which images train, and which measure."""
