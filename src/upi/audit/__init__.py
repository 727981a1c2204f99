"""Many maps and radii in one run, and a verdict by written thresholds."""
