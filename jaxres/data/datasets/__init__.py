"""Datasets, a file each: name, version, preparation, loading. `registry` has them all."""
