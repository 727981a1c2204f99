"""The command line: ``upi demo | train | fit | evaluate | report``."""
