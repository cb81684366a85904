"""Weights of other libraries: files read without running anything, names and layouts translated."""
