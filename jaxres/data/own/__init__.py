"""Datasets of a user's own: a folder of images, a CSV file, any TFDS dataset in ArrayRecord."""
