"""The command line: ``upi demo | train | fit | evaluate | transfer | report | reproduce``."""
