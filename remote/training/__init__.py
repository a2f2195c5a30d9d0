"""Training by gradient: the loop, its recipe, its checkpoints."""
