"""A model's convolutions one by one: traced, timed and set beside their roofs."""
