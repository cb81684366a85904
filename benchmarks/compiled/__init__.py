"""Compiled programs read for what they move and compute, also for chips that are not there."""
