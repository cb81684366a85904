"""Checkpoints: what they hold, writing and reading them, detecting damage."""
