"""The report: figures and pictures of an evaluation as one folder with an HTML page."""

from fairweather.evaluation.report.wording import figure_text, label
from fairweather.evaluation.report.writer import ReportWriter

__all__ = ["ReportWriter", "figure_text", "label"]
