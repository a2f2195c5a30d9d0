"""Datasets and weights between this computer, the store and machines."""
