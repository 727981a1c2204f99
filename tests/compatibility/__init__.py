"""What works with what: cases that are run, and the table in docs/compatibility.md that they fill."""
