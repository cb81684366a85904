"""Data: original files, prepared data sets, plans and the two renderers."""
