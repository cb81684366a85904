"""One file per family of networks, with a table of its members: `MODELS`."""
