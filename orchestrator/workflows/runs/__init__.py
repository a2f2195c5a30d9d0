"""A run, from what is wanted to its end, on whatever machines that takes."""
