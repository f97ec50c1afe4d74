"""Ports for servers that cannot be told to take any that is free."""

from __future__ import annotations

import contextlib
import secrets
import socket

LOWEST, HIGHEST = 20_000, 32_000
"""Below the ports that the kernel gives to clients and for port 0: none of these is taken by itself."""


def free_port() -> int:
    """Return a port that nothing listens at now; nobody gets it by chance before the server starts, or starts again."""
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
