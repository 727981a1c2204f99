"""Results to figures to one HTML page; sees no model."""

from upi.report.page import build_report

__all__ = ["build_report"]
