"""The half of tlvm that runs on the user's computer. It never imports torch."""

__version__ = "0.1.0"
