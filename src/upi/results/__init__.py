"""The files of a run, written whole."""
