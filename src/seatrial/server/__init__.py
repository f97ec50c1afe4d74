"""The server: one bundle of one model, over the Open Inference Protocol v2 and JSON.

:mod:`seatrial.server.run` starts and stops it, :mod:`seatrial.server.http` knows HTTP,
:mod:`seatrial.server.service` what a prediction and an outcome are, :mod:`seatrial.server.requests`
what a client may send, :mod:`seatrial.server.holder` which model answers, and
:mod:`seatrial.server.model` how. The endpoints are described in ``docs/reference/server.md``.
"""

from seatrial.server.run import ServeOptions, serve

__all__ = ["ServeOptions", "serve"]
