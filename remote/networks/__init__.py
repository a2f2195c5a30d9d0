"""Pre-trained networks: built, loaded from verified files, seen stage by stage."""
