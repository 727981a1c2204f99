"""The public door for images."""
