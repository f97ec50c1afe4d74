"""What a client is told when its request fails, whatever protocol it speaks, and what the server's log is told."""

from __future__ import annotations

import logging
import traceback

from seatrial.errors import BundleError, FeatureError, FeedbackError, RequestError

_log = logging.getLogger("seatrial.server")


def describe_fault(error: Exception, what: str, *, discreet: bool) -> tuple[int, str]:
    """Return the HTTP status of what went wrong, and what the client is told; a fault of ours is logged.

    Args:
        error: What went wrong.
        what: What was asked, for the log.
        discreet: Whether the log must do without the error's text, because private values may be in it.
    """
    if isinstance(error, RequestError):
        return error.status, str(error)
    if isinstance(error, FeatureError):
        return 400, str(error)
    if isinstance(error, FeedbackError):
        return 503, str(error)
    if isinstance(error, BundleError):  # It was verified, and has not what is asked of it.
        return 404, str(error)
    if discreet:
        stack = "".join(traceback.format_tb(error.__traceback__))
        _log.error("A request failed: %s: %s\n%s", what, type(error).__name__, stack)
    else:
        _log.error("A request failed: %s", what, exc_info=error)
    return 500, "The server failed. Its log says why."
