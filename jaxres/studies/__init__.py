"""The published studies: what their tables hold, and how to run them."""
