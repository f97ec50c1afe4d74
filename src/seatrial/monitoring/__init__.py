"""Monitoring: live rows against the baseline that the bundle keeps, and live quality.

:mod:`seatrial.monitoring.baseline` is what a bundle remembers of its training rows,
:mod:`seatrial.monitoring.drift` how far live rows have moved from it,
:mod:`seatrial.monitoring.quality` how good the answers were, :mod:`seatrial.monitoring.monitor`
judges both by the contract, :mod:`seatrial.monitoring.clients` finds what one client alone causes, and
:mod:`seatrial.monitoring.evidently_report` draws.
"""

from seatrial.monitoring.baseline import Baseline, fit_baseline
from seatrial.monitoring.drift import ColumnDrift, Drift, compare
from seatrial.monitoring.monitor import MonitorResult, monitor

__all__ = ["Baseline", "ColumnDrift", "Drift", "MonitorResult", "compare", "fit_baseline", "monitor"]
