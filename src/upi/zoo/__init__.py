"""Datasets by name, classifiers by name, training. Only the command line imports it."""
