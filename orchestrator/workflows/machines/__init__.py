"""Machines: asked for, watched, stopped, and proven gone."""
