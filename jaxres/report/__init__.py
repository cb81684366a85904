"""Runs and studies as one page."""
