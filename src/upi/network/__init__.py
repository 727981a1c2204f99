"""The classifier, its smooth surrogate, quick second derivatives."""
