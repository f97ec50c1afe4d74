"""The feedback log: what was answered, and what became of it.

A server writes each prediction and each outcome into :mod:`seatrial.feedback.log`, a write-ahead
log of :mod:`segments <seatrial.feedback.segments>` on local disk, before it answers.
:mod:`seatrial.feedback.shipping` moves full segments into the Delta tables ``predictions`` and
``outcomes``, and :mod:`seatrial.feedback.joining` reads them back as training and monitoring data.
The format is written down in ``docs/reference/feedback-log.md``.
"""

from seatrial.feedback.joining import OutcomeCounts, count_outcomes, join_outcomes, read_predictions
from seatrial.feedback.log import FeedbackLog
from seatrial.feedback.shipping import Shipper

__all__ = [
    "FeedbackLog",
    "OutcomeCounts",
    "Shipper",
    "count_outcomes",
    "join_outcomes",
    "read_predictions",
]
