"""Networks, their registry, and the pure function each becomes."""
