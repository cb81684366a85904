"""Readers of file formats. None trusts a file."""
