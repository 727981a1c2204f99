"""Audits: many maps and radii in one run, a verdict by written thresholds, before and after."""
