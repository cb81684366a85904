"""The commands: each a dataclass of arguments and a function of the words after its name."""
