"""JaxRes trains and evaluates convolutional classifiers on digit pictures made on the fly."""

__version__ = "0.1.0"
