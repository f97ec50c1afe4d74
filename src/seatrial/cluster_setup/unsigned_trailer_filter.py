"""Stands in front of MinIO and refuses the one kind of request that its open holes need.

Versions of MinIO that may still be had let anybody who knows the name of an access key write whatever
that key may write, without its secret: such requests say that their payload is unsigned and has a
trailer (threats: Z1; CVE-2026-40344, CVE-2026-41145). No client of ours sends them over plain HTTP,
so they are refused here; all else passes, byte by byte as it came, because a signature covers it.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Iterable
from urllib.parse import unquote

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    web,
)
from multidict import CIMultiDict
from yarl import URL

from seatrial.cluster_setup.entry import run, say

UNSIGNED_TRAILER = "UNSIGNED-PAYLOAD-TRAILER"
CONTENT_SHA256 = "X-Amz-Content-Sha256"
BETWEEN_TWO = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "expect"}
)
"""Headers that concern one connection alone (RFC 9110, section 7.6.1), in lower case."""
BUFFER_BYTES = 2**18
"""How much of a body waits in memory for each direction of a request."""
LONGEST_LINE_BYTES = 2**15
CONNECT_SECONDS = 5.0
SHUTDOWN_SECONDS = 20.0
SESSION = web.AppKey("session", ClientSession)
UPSTREAM = web.AppKey("upstream", str)
REFUSED = "Requests with an unsigned payload and a trailer are refused here: this MinIO does not check them."


def is_refused(target: str, content_sha256: Iterable[str]) -> bool:
    """Whether a request claims an unsigned payload with a trailer, in a header or in its query.

    Args:
        target: The request's target as it came: path and query.
        content_sha256: Every value of the header ``X-Amz-Content-Sha256``.
    """
    query = unquote(target.partition("?")[2])
    return any(UNSIGNED_TRAILER in text.upper() for text in (query, *content_sha256))


def _passed_on(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    """Return the headers without those of the connection that they came over."""
    return CIMultiDict((name, value) for name, value in headers if name.lower() not in BETWEEN_TWO)


async def _pass_back(request: web.Request, answer: ClientResponse) -> web.StreamResponse:
    """Stream an answer to the client; one that breaks off must not look whole, so the connection breaks too."""
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=_passed_on(answer.headers.items())
    )
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    except (ClientError, TimeoutError) as error:
        say(f"{request.method} broke off: {type(error).__name__}")
        if request.transport is not None:
            request.transport.abort()
    return response


def _error(status: int, code: str, message: str) -> web.Response:
    """Return an error in the form of S3, which its clients understand; the connection ends with it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    response = web.Response(status=status, text=text, content_type="application/xml")
    response.force_close()  # the body may not have been read
    return response


async def _handle(request: web.Request) -> web.StreamResponse:
    """Answer one request: refuse it, or pass it on and its answer back."""
    if is_refused(request.raw_path, request.headers.getall(CONTENT_SHA256, ())):
        say(f"refused {request.method} {request.path}: unsigned payload with a trailer")
        return _error(403, "AccessDenied", REFUSED)
    try:
        async with request.app[SESSION].request(
            request.method,
            URL(request.app[UPSTREAM] + request.raw_path, encoded=True),
            headers=_passed_on(request.headers.items()),
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            return await _pass_back(request, answer)
    except (ClientError, TimeoutError) as error:
        say(f"{request.method} failed: {type(error).__name__}")
        return _error(503, "ServiceUnavailable", "The object store does not answer. Please try again.")


async def _open_session(app: web.Application) -> AsyncIterator[None]:
    """Keep one client session, that adds nothing of its own to a request, while the filter serves."""
    async with ClientSession(
        connector=TCPConnector(limit=0),
        timeout=ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        read_bufsize=BUFFER_BYTES,
    ) as session:
        app[SESSION] = session
        yield


def make_app(upstream: str) -> web.Application:
    """Return the filter as an application.

    Args:
        upstream: Where requests are passed on to, such as ``http://127.0.0.1:9001``.
    """
    app = web.Application()
    app[UPSTREAM] = upstream.rstrip("/")
    app.cleanup_ctx.append(_open_session)
    app.router.add_route("*", "/{path:.*}", _handle)
    return app


def main() -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser(
        prog="python -m seatrial.cluster_setup.unsigned_trailer_filter", description=__doc__
    )
    parser.add_argument("--listen", required=True, metavar="HOST:PORT", help="where requests come in")
    parser.add_argument(
        "--upstream", required=True, metavar="URL", help="the store, such as http://127.0.0.1:9001"
    )
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    say(f"listens on {arguments.listen}, passes on to {arguments.upstream}")
    web.run_app(
        make_app(arguments.upstream),
        host=host,
        port=int(port),
        access_log=None,
        print=None,
        handler_cancellation=True,  # a client that is gone needs no answer
        shutdown_timeout=SHUTDOWN_SECONDS,
        auto_decompress=False,
        read_bufsize=BUFFER_BYTES,
        max_line_size=LONGEST_LINE_BYTES,
        max_field_size=LONGEST_LINE_BYTES,
    )


if __name__ == "__main__":
    run(main)
