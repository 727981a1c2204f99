"""One study, or every table of the paper."""
