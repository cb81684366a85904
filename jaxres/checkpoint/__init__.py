"""Checkpoints: what they hold, writing and reading them, telling damage."""
