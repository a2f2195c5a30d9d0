"""Providers make machines. They do not know each other; they are named as strings and imported on use."""
