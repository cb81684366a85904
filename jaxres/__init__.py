"""JaxRes trains and evaluates convolutional classifiers on digit images made on the fly."""

__version__ = "0.1.0"
