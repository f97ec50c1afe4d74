"""Every bad input by its name (threats: I1 to I15), over every protocol, as one table.

A row is a fault, a column a protocol. Each protocol is sent the same fault in its own words, and refuses it as the
client's, saying what would be right, or answers what is only unusual. Where a protocol cannot express a fault, the
table says why. What is a single protocol's own is in the tests of that protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.local.serving.conftest import Server
from tests.local.serving.protocols import (
    BUSY,
    COLUMNS,
    INVALID,
    MISSING,
    OK,
    PROTOCOLS,
    TOO_MUCH,
    Column,
    Message,
    is_grpc,
    prediction_ids,
    send,
    served_by,
)
from tests.local.serving.test_grpc import Calls

HERE = Path(__file__).parent
V2 = ("v2 json", "v2 binary", "v2 grpc", "v2 grpc raw", "explain")
SELDON = ("seldon json", "seldon grpc")
JSON = ("v2 json", "v2 binary", "seldon json", "explain")
GRPC = ("v2 grpc", "v2 grpc raw", "seldon grpc")
TYPED = ("v2 binary", "v2 grpc", "v2 grpc raw")
"""The protocols in whose tensors each value has the tensor's type, so that no other can be written."""
DEEP = 100_000
LONG = 1_100_000


@dataclass(frozen=True)
class Fault:
    """A fault in the words of one protocol, and what is said to it.

    Attributes:
        name: Its number among the threats, and what it is.
        protocol: The protocol.
        make: Makes the request.
        code: Which kind of answer it gets.
        words: A part of what is said.
    """

    name: str
    protocol: str
    make: Callable[[], Message]
    code: str
    words: str

    def __str__(self) -> str:
        return f"{self.name}, {self.protocol}"


Change = Callable[[list[Column]], Sequence[Column]]


def columns(
    name: str,
    words: str,
    change: Change,
    code: str = INVALID,
    among: Sequence[str] = tuple(PROTOCOLS),
    **instead: str,
) -> list[Fault]:
    """Return a fault in what a request holds.

    Args:
        name: The fault.
        words: A part of what is said to it.
        change: Changes the good request's columns.
        code: Which kind of answer it gets.
        among: The protocols that can express it.
        instead: Other words of a family of protocols: ``json``, ``grpc``, ``seldon_grpc``.
    """

    def said(protocol: str) -> str:
        family = "seldon_grpc" if protocol == "seldon grpc" else "grpc" if is_grpc(protocol) else protocol
        return instead.get("json" if protocol in JSON[:1] + JSON[2:] else family.replace(" ", "_"), words)

    return [
        Fault(
            name,
            protocol,
            lambda protocol=protocol: PROTOCOLS[protocol](change(list(COLUMNS))),
            code,
            said(protocol),
        )  # type: ignore[misc]
        for protocol in among
    ]


def content(
    name: str, words: str, change: Callable[[bytes], bytes], among: Sequence[str], code: str = INVALID
) -> list[Fault]:
    """Return a fault in how a request is written: in its JSON, or its protobuf."""

    def make(protocol: str) -> Message:
        good = PROTOCOLS[protocol](COLUMNS)
        if protocol != "v2 binary":
            return Message(good.path, change(good.body), good.headers)
        size = int(good.headers["inference-header-content-length"])
        text = change(good.body[:size])
        headers = {**good.headers, "inference-header-content-length": str(len(text))}
        return Message(good.path, text + good.body[size:], headers)

    return [
        Fault(name, protocol, lambda protocol=protocol: make(protocol), code, words) for protocol in among
    ]  # type: ignore[misc]


def only(column: str, /, **changes: Any) -> Change:
    """Change one column."""
    return lambda given: [Column(**{**vars(one), **changes}) if one.name == column else one for one in given]


def key_twice(text: bytes, written: bytes | None = None) -> bytes:
    """Write the first key of a JSON object once more, perhaps in another way."""
    key = written or re.findall(rb'"\w+"', text)[0]
    return text[:-1] + b"," + key + b":[]}"


def escaped(text: bytes) -> bytes:
    key = re.findall(rb'"(\w+)"', text)[0].decode()
    return key_twice(text, b'"\\u%04x%s"' % (ord(key[0]), key[1:].encode()))


MUST_BE_JSON = "must be JSON"
NOT_JSON: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "I1 empty": (lambda _: b"", MUST_BE_JSON),
    "I1 not JSON": (lambda _: b"hello", MUST_BE_JSON),
    "I1 cut off": (lambda text: text[:-1], MUST_BE_JSON),
    "I1 null": (lambda _: b"null", "must be a JSON object"),
    "I1 list": (lambda _: b"[]", "must be a JSON object"),
    "I1 number": (lambda _: b"1", "must be a JSON object"),
    "I1 byte order mark": (lambda text: b"\xef\xbb\xbf" + text, MUST_BE_JSON),
    "I1 UTF-16": (lambda text: text.decode().encode("utf-16"), MUST_BE_JSON),
    "I1 not UTF-8": (lambda text: text.replace(b"line", b"l\xffne"), MUST_BE_JSON),
    "I1 NUL": (lambda text: text + b"\x00", MUST_BE_JSON),
    "I1 lone surrogate": (lambda text: text.replace(b'"line"', b'"\\ud800"'), MUST_BE_JSON),
    "I2 key twice": (key_twice, "is there twice"),
    "I2 key twice, escaped": (escaped, "is there twice"),
    "I3 deep list": (lambda _: b"[" * DEEP + b"]" * DEEP, MUST_BE_JSON),
    "I3 deep object": (lambda _: b'{"a":' * DEEP, MUST_BE_JSON),
    "I3 deep, but allowed by the parser": (
        lambda _: b'{"inputs":' + b"[" * 1000 + b"]" * 1000 + b"}",
        "nested too deeply",
    ),
}
NUMBERS = {
    "I2 Infinity": b"-Infinity",
    "I2 number beyond a double": b"1e400",
    "I4 5,000 digits": b"9" * 5000,
}


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def nested(depth: int) -> bytes:
    """Return a message of Seldon's whose ``jsonData`` is a list within a list, and so on."""
    value = b"\x08\x00"
    for _ in range(depth):
        inner = b"\x0a" + varint(len(value)) + value
        value = b"\x32" + varint(len(inner)) + inner
    return b"\x32" + varint(len(value)) + value


def renamed(new: str) -> Change:
    return only("line", name=new)


def repeated(count: int) -> Change:
    return lambda given: [Column(one.name, one.datatype, list(one.values) * count) for one in given]


_FINITE = "must be a finite number"
TABLE: list[Fault] = [
    *(fault for name, (change, words) in NOT_JSON.items() for fault in content(name, words, change, JSON)),
    *(
        fault
        for name, text in NUMBERS.items()
        for fault in content(
            name,
            MUST_BE_JSON,
            lambda body, text=text: body.replace(b"3.5", text),
            ("v2 json", "seldon json", "explain"),  # type: ignore[misc]
        )
    ),
    *content("I1 not protobuf", "The message must be a", lambda _: b"hello", GRPC),
    *content("I12 cut off", "The message must be a", lambda body: body[:-1], GRPC),
    *content("I12 unknown field", "", lambda body: body + b"\xfa\x3f\x01x", GRPC, OK),
    *content("I12 wire type that is none", "The message must be a", lambda body: body + b"\x0f", GRPC),
    *content("I3 deep message", "The message must be a", lambda _: nested(1000), ("seldon grpc",)),
    *columns(
        "I2 NaN",
        _FINITE,
        only("wind", values=[float("nan")]),
        json=MUST_BE_JSON,
        seldon_grpc="values that JSON has",
    ),
    *columns(
        "I2 infinite",
        _FINITE,
        only("wind", values=[float("inf")]),
        json=MUST_BE_JSON,
        seldon_grpc="values that JSON has",
    ),
    *columns(
        "I4 2^70", "must be a whole number", only("passengers", values=[2**70]), among=("v2 json", "explain")
    ),
    *columns(
        "I4 beyond 64 bits",
        "must fit into INT64",
        only("passengers", values=[2**63]),
        among=("v2 json", "seldon json", "explain"),
    ),
    *columns("I4 beyond float32", _FINITE, only("wind", values=[1e39])),
    *columns(
        "I5 text among numbers", _FINITE, only("wind", values=["3"]), among=("v2 json", *SELDON, "explain")
    ),
    *columns(
        "I5 number among texts",
        "must be a text",
        only("line", values=[5]),
        among=("v2 json", *SELDON, "explain"),
    ),
    *columns(
        "I5 list as a value", _FINITE, only("wind", values=[[3.5]]), among=("v2 json", *SELDON, "explain")
    ),
    *columns("I6 shape of more rows", "must have", only("wind", shape=[3]), among=V2),
    *columns("I6 shape of two columns", "shape must be [n] or [n, 1]", only("wind", shape=[1, 2]), among=V2),
    *columns("I6 negative shape", "shape must be [n] or [n, 1]", only("wind", shape=[-1]), among=V2),
    *columns("I6 huge shape", "shape must be [n] or [n, 1]", only("wind", shape=[2**31, 2**31]), among=V2),
    *columns("I6 other rows than the others", "", only("wind", values=[3.5, 4.5]), among=V2),
    *columns("I6 unknown tensor", 'no input "colour"', renamed("colour")),
    *columns("I6 tensor twice", "is there twice", lambda given: [*given, given[2]]),
    *columns(
        "I6 datatype of another", "datatype must be", only("line", datatype="BOOL", values=[True]), among=V2
    ),
    *columns("I7 missing", "'crossing_id' is missing", lambda given: given[1:]),
    *columns(
        "I7 one too many", 'no input "colour"', lambda given: [*given, Column("colour", "BYTES", ["red"])]
    ),
    *columns("I7 other case", "Did you mean 'line'?", renamed("Line")),
    *columns("I7 look-alike", "Did you mean 'line'?", renamed("l\u0456ne")),
    *columns("I7 in another order", "", lambda given: given[::-1], OK),
    *columns("I8 never seen", "", only("line", values=["never seen"]), OK),
    *columns("I8 empty text", "", only("line", values=[""]), OK),
    *columns("I8 formula, HTML, CRLF", "", only("line", values=["=cmd()<script>\r\n\t\x00"]), OK),
    *columns("I8 long text", "must be a text of at most 1,000", only("line", values=["x" * 900_000])),
    *columns("I8 text of 1,001", "must be a text of at most 1,000", only("line", values=["x" * 1001])),
    *columns("I9 out of range", "", only("wind", values=[-1e30]), OK),
    *columns("I9 wrong unit", "", only("passengers", values=[10**9]), OK),
    *columns("I9 long ago", "", only("departs_at", values=["1900-01-01"]), OK),
    *columns("I9 too far ahead", "from 1900 to 2199", only("departs_at", values=["2200-01-01"])),
    *columns("I9 no day", "must be an ISO 8601 time", only("departs_at", values=["2024-02-30T10:00:00Z"])),
    *columns("I9 other time zone", "", only("departs_at", values=["2024-02-01T10:00:00+05:30"]), OK),
    *columns("I10 no rows", "at least one row", repeated(0), among=(*V2, "seldon json", "seldon grpc")),
    *columns(
        "I10 too many rows",
        "at most",
        repeated(2001),
        TOO_MUCH,
        among=("v2 json", "v2 binary", "seldon json", "explain"),
    ),
    *columns("I10 too many rows", "at most 2,000 rows", repeated(2001), among=GRPC),
    *content(
        "V3 too many bytes",
        "at most 1,000,000 bytes",
        lambda body: body[:-1] + b" " * LONG + body[-1:],
        JSON,
        TOO_MUCH,
    ),
    *content(
        "V3 too many bytes",
        "larger than max",
        lambda body: body + b"\xfa\x3f" + varint(LONG) + b"x" * LONG,
        GRPC,
        BUSY,
    ),
]


@pytest.fixture(scope="module")
def calls(server: Server) -> Calls:
    return Calls(server)


@pytest.mark.parametrize("fault", TABLE, ids=str)
def test_fault_is_told_or_answered(server: Server, calls: Calls, fault: Fault) -> None:
    """A fault is told as the client's, in few words that say what would be right; what is only unusual is answered."""
    said = send(server, calls, fault.protocol, fault.make())
    assert said.code == fault.code, said.words
    assert fault.words in said.words
    assert len(said.words) < 400
    assert send(server, calls, fault.protocol, PROTOCOLS[fault.protocol](COLUMNS)).code == OK


# What is in a request's head, or beside it.

OTHER_PATHS = ("/v2/models/other/", "/v2/models/..%2fferry/", "/v2/models/f%C4%93rry/")
REST_V2 = ("v2 json", "v2 binary", "explain")


@pytest.mark.parametrize("protocol", V2)
def test_other_model_is_not_there(server: Server, calls: Calls, protocol: str) -> None:
    """I13: another model's name, a path that leads astray and a look-alike are not found, and answered by no model."""
    good = PROTOCOLS[protocol](COLUMNS)
    if is_grpc(protocol):
        names = [b"other", b"../ferry", "f\u0113rry".encode()]
        asked = [Message(good.path, good.body + b"\x0a" + varint(len(name)) + name) for name in names]
    else:
        asked = [
            Message(good.path.replace("/v2/models/ferry/", path), good.body, good.headers)
            for path in OTHER_PATHS
        ]
    for message in asked:
        said = send(server, calls, protocol, message)
        assert (said.code, "There is no model" in said.words) == (MISSING, True), said.words


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if not is_grpc(name)])
@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": "multipart/form-data"}, {"content-encoding": "gzip"}],
)
def test_other_content_is_refused(
    server: Server, calls: Calls, protocol: str, headers: dict[str, str]
) -> None:
    """I11: content of another type, and what is compressed, is refused, not guessed at."""
    said = send(server, calls, protocol, PROTOCOLS[protocol](COLUMNS), **headers)
    assert said.code == INVALID
    assert next(iter(headers)).split("-")[1] in said.words


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_authorization_changes_nothing(server: Server, calls: Calls, protocol: str) -> None:
    """I14: a header that authorizes, long or of no known scheme, is not looked at; one beyond all limits is refused."""
    good = PROTOCOLS[protocol](COLUMNS)
    for value in ("", "Bearer " + "x" * 5000, "Basic"):
        assert send(server, calls, protocol, good, authorization=value).code == OK
    said = send(server, calls, protocol, good, authorization="x" * 70_000)
    assert said.code == (BUSY if is_grpc(protocol) else TOO_MUCH), said.words


def with_id(protocol: str, name: str) -> Message:
    """Return the good request with an id of the client's."""
    good, text = PROTOCOLS[protocol](COLUMNS), name.encode()
    if protocol == "seldon grpc":
        meta = b"\x0a" + varint(len(text)) + text
        return Message(good.path, good.body + b"\x12" + varint(len(meta)) + meta)
    if is_grpc(protocol):
        return Message(good.path, good.body + b"\x1a" + varint(len(text)) + text)
    more = b'"meta":{"puid":"%s"}' if protocol == "seldon json" else b'"id":"%s"'
    (fault,) = content("", "", lambda body: body[:-1] + b"," + more % text + b"}", (protocol,))
    return fault.make()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_id_twice_is_two_predictions(server: Server, calls: Calls, protocol: str) -> None:
    """I15: requests that share the client's id are predictions of their own; the id comes back, and is never a key."""
    said = [send(server, calls, protocol, with_id(protocol, "same")) for _ in range(2)]
    assert [one.code for one in said] == [OK, OK]
    ids = [name for one in said for name in prediction_ids(protocol, one)]
    assert len(set(ids)) == 2
    for one in said:
        assert (one.content["meta"]["puid"] if protocol in SELDON else one.content["id"]) == "same"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answer_names_its_bundle(server: Server, calls: Calls, protocol: str) -> None:
    """V9: each answer names the bundle that made it."""
    assert (
        served_by(protocol, send(server, calls, protocol, PROTOCOLS[protocol](COLUMNS)))
        == (server.get("/v2/models/ferry").content["versions"][0])
    )


# Every number, over every protocol: in the table, or there is a reason.

SINGLE = {
    "I11": [name for name in PROTOCOLS if not is_grpc(name)],
    "I13": list(V2),
    "I14": list(PROTOCOLS),
    "I15": list(PROTOCOLS),
}
"""The faults that have tests of their own above, by the protocols that these are about."""
CANNOT_BE: dict[tuple[str, tuple[str, ...]], str] = {
    ("I3", ("v2 grpc", "v2 grpc raw")): "its messages have no depth: no field of theirs holds its own kind",
    ("I5", TYPED): "all values of a tensor have its type, so no other can be written",
    ("I11", GRPC): "the library refuses another content type as no gRPC",
    ("I12", JSON): "it has no protobuf",
    ("I13", SELDON): "its messages name no model",
}


@pytest.mark.parametrize("number", [f"I{number}" for number in range(1, 16)])
def test_table_is_whole(number: str) -> None:
    """Each fault is tried over each protocol, unless the protocol cannot express it."""
    tried = {fault.protocol for fault in TABLE if fault.name.split()[0] == number} | set(
        SINGLE.get(number, ())
    )
    without = {name for (fault, names) in CANNOT_BE if fault == number for name in names}
    assert tried | without == set(PROTOCOLS)
    assert not tried & without


ELSEWHERE = {
    "V1": ["unit/test_http1.py::test_slow_headers_are_cut_off", "test_grpc.py::test_half_a_call_ends"],
    "V2": ["test_many_connections.py::test_idle_connections_take_nothing_from_others"],
    "V3": [
        "test_bad_requests.py::test_huge_body_is_refused_and_not_kept",
        "test_bad_requests.py::test_raw_nonsense_does_not_disturb",
    ],
    "V4": ["test_held.py::test_overload_is_told_at_once"],
    "V5": ["test_hanging.py::test_prediction_that_hangs_ends_its_server"],
    "V7": ["test_swap.py::test_tampered_bundle_is_refused"],
    "V8": [
        "test_swap.py::test_swaps_drop_no_request",
        "test_process.py::test_drains_before_it_stops",
        "test_grpc.py::test_drains",
    ],
    "V9": ["test_faults.py::test_answer_names_its_bundle"],
    "V10": ["test_any_message.py::test_what_is_not_there_disturbs_nobody"],
    "V11": ["test_load.py::test_figures_count_what_was_answered"],
    "V12": ["test_held.py::test_explanation_holds_up_no_prediction"],
    "V13": ["test_crash.py::test_store_that_is_away_only_delays", "test_crash.py::test_full_disk_heals"],
    "V14": ["test_bad_requests.py::test_other_paths_and_methods"],
}
"""Where the faults of the process are tried; a memory leak (V6) is looked for by ``make bench-soak``."""


@pytest.mark.parametrize("number", ELSEWHERE)
def test_faults_of_the_process_are_tried(number: str) -> None:
    """Each fault of the process has a test, where the table says."""
    for place in ELSEWHERE[number]:
        file, _, function = place.partition("::")
        path = HERE.parents[1] / file if "/" in file else HERE / file
        assert f"def {function}(" in path.read_text()
