"""The kinds of input that are fuzzed, each with its valid examples and the code that reads them."""
