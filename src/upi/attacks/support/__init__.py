"""What attacks are built from: objectives, ascent, rows, search, the compiled step."""
