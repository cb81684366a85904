"""Data: original files, prepared datasets, plans and the two renderers."""
