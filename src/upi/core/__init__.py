"""Errors, protocols, seeds, workers and files written whole."""
