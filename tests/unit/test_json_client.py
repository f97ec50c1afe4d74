"""The client of the replay: answers belong to their requests, whatever the server does between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from seatrial.json_client import JsonClient

OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Return the body of the next request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return await reader.readexactly(int(length.split(b":")[1]))


def asked(handler: Handler, questions: list[bytes], connections: int = 4) -> tuple[list[object], int]:
    """Ask a server of this handler all at once; return the answers or errors, and how often it was connected to."""
    count = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def run() -> list[object]:
        server = await asyncio.start_server(counted, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, JsonClient(f"http://127.0.0.1:{port}", connections) as client:
            return list(
                await asyncio.gather(
                    *(client.ask("POST", "/", question) for question in questions), return_exceptions=True
                )
            )

    return asyncio.run(run()), count


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its body, in pieces."""
    while True:
        body = await read_request(reader)
        answer = OK % (len(body), body)
        for start in range(0, len(answer), 7):
            writer.write(answer[start : start + 7])
            await asyncio.sleep(0)


def test_each_request_gets_its_own_answer_over_few_connections() -> None:
    """Many requests share the connections, and none gets another's answer."""
    questions = [b"%d" % number for number in range(50)]

    answers, connections = asked(echo, questions)

    assert answers == [(200, question) for question in questions]
    assert connections <= 4


async def say_goodbye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request in chunks, and close the connection as was said."""
    body = await read_request(reader)
    head = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


def test_a_server_that_closes_after_each_answer_is_connected_to_again() -> None:
    """A connection that ends with its answer is no failure of the next request."""
    answers, connections = asked(say_goodbye, [b"a", b"b", b"c"], connections=1)

    assert answers == [(503, b"a"), (503, b"b"), (503, b"c")]
    assert connections == 3


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close in the middle of the answer to ``cut``; answer other requests."""
    while True:
        body = await read_request(reader)
        if body == b"cut":
            writer.write(OK % (100, b"half"))
            return
        if body == b"noise":
            writer.write(b"no HTTP at all\r\n\r\n")
            continue
        writer.write(OK % (len(body), body))


def test_an_answer_that_breaks_off_or_is_no_http_fails_its_request_alone() -> None:
    """The request whose answer is not whole fails with an error of the system; those after it are answered."""
    answers, _ = asked(hang_up, [b"a", b"cut", b"b", b"noise", b"c"], connections=1)

    assert [isinstance(answer, OSError) for answer in answers] == [False, True, False, True, False]
    assert (answers[0], answers[2], answers[4]) == ((200, b"a"), (200, b"b"), (200, b"c"))


async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer ``slow`` after a moment, everything else at once."""
    while True:
        body = await read_request(reader)
        if body == b"slow":
            await asyncio.sleep(0.2)
        writer.write(OK % (len(body), body))


def test_the_answer_to_a_request_that_was_given_up_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time-out the connection is not used again."""
    monkeypatch.setattr("seatrial.json_client.TIMEOUT_SECONDS", 0.1)

    answers, connections = asked(answer_late, [b"slow", b"next"], connections=1)

    assert isinstance(answers[0], TimeoutError)
    assert answers[1] == (200, b"next")
    assert connections == 2


def test_a_server_that_is_not_there_is_an_error_of_the_system() -> None:
    """Nobody listens: the request fails."""

    async def run() -> None:
        async with JsonClient("http://127.0.0.1:1", 1) as client:
            with pytest.raises(OSError, match="refused|Connect"):
                await client.ask("GET", "/")

    asyncio.run(run())


@pytest.mark.parametrize("url", ["ftp://example.com", "example.com:8080", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """What is no address of HTTP is said so at once."""
    with pytest.raises(ValueError, match="no address of HTTP"):
        JsonClient(url, 1)
