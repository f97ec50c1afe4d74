"""Waits until what a container needs answers, and says every few seconds what it waits for.

A process that dies because its database is still starting is started again, later and later, and
shows up as a restart that somebody has to understand. So each pod of the platform waits first.
"""

from __future__ import annotations

import argparse
import socket
import time
import urllib.error
import urllib.request
from urllib.parse import SplitResult, urlsplit

from seatrial.cluster_setup.entry import run, say
from seatrial.errors import StoreError, UsageError

PROBE_SECONDS = 3.0
"""How long one attempt may take."""
PAUSE_SECONDS = 0.5
LINE_SECONDS = 5.0
"""How often is said what is waited for."""
FORMS = ("tcp://HOST:PORT", "http(s)://...", "grpc://HOST:PORT/SERVICE/METHOD", "s3://BUCKET")
_GRPC_PARTS = 2


def why_silent(address: str) -> str:
    """Try an address once.

    Args:
        address: ``tcp://HOST:PORT`` accepts a connection; ``http://...`` and ``https://...`` answer with a
            status below 300; ``grpc://HOST:PORT/SERVICE/METHOD`` answers an empty message without an error;
            ``s3://BUCKET/PREFIX`` can be listed with the credentials of the ``AWS_*`` variables.

    Returns:
        Why it does not answer; empty if it does.

    Raises:
        UsageError: if it is no such address, or a variable that it needs is not set.
    """
    parts = urlsplit(address)
    if parts.scheme == "tcp" and parts.hostname and parts.port:
        return _why_no_connection(parts.hostname, parts.port)
    if parts.scheme in {"http", "https"} and parts.hostname:
        return _why_no_page(address)
    if parts.scheme == "grpc" and parts.hostname and parts.port and parts.path.count("/") == _GRPC_PARTS:
        return _why_no_reply(parts)
    if parts.scheme == "s3" and parts.netloc:
        return _why_no_bucket(parts)
    raise UsageError(f"An address must be one of {', '.join(FORMS)}. Got {address!r} instead.")


def _why_no_connection(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        return str(error)
    return ""


def _why_no_page(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=PROBE_SECONDS):  # noqa: S310 -- the scheme was looked at
            return ""
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error))


def _why_no_reply(parts: SplitResult) -> str:
    import grpc

    # A connection of its own each time: one that was made before the network knew the Service may lead elsewhere.
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(parts.netloc, options=options) as channel:
        try:
            channel.unary_unary(parts.path)(b"", timeout=PROBE_SECONDS)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return ""


def _why_no_bucket(parts: SplitResult) -> str:
    from seatrial.cluster_setup.object_store import Store, why_closed

    store = Store.of_environment()
    return why_closed(store.endpoint, store.credentials, store.region, parts.netloc, parts.path.strip("/"))


def wait_for(addresses: list[str], *, limit_seconds: float | None = None) -> None:
    """Return when every address has answered, one after the other.

    Args:
        addresses: What is waited for, in this order.
        limit_seconds: How long in all; None: for ever, as a container does that has nothing else to do.

    Raises:
        UsageError: if an address is none.
        StoreError: if the time is over.
    """
    begun = said = time.monotonic()
    for address in addresses:
        reason = ""
        while why := why_silent(address):
            now = time.monotonic()
            if limit_seconds is not None and now - begun > limit_seconds:
                raise StoreError(
                    f"{address} has not answered within {limit_seconds:g} seconds: {why}.",
                    remedy="Look at its pod: kubectl describe pod",
                )
            if why != reason or now - said > LINE_SECONDS:
                say(f"waiting for {address} ({why})")
                reason, said = why, now
            time.sleep(PAUSE_SECONDS)
        say(f"{address} answers")


def main() -> None:
    """Wait for the addresses of the command line."""
    parser = argparse.ArgumentParser(prog="python -m seatrial.cluster_setup.wait", description=__doc__)
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS", help=", ".join(FORMS))
    parser.add_argument("--limit-seconds", type=float, help="give up then; without it, never")
    arguments = parser.parse_args()
    wait_for(arguments.addresses, limit_seconds=arguments.limit_seconds)


if __name__ == "__main__":
    run(main)
