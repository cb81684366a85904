"""Compositions: the plans of images, and the renderers that make pixels of them."""
