"""Results to figures to one HTML page; reads files, never a model."""

from upi.report.page import build_report

__all__ = ["build_report"]
