"""The report: one self-contained HTML page a run, verdicts first.

It loads nothing, runs no script, and says so to the browser (a content security policy), because
what it shows comes from users' data (threats: A14).
"""

from seatrial.report.facts import ReportFacts
from seatrial.report.page import render_report
from seatrial.report.stored import drift_key, find_report, monitor_key, report_key

__all__ = ["ReportFacts", "drift_key", "find_report", "monitor_key", "render_report", "report_key"]
