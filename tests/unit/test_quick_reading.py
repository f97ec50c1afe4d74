"""The quick reading of a request says what the full one says, or nothing."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.bundle import InputColumn
from seatrial.errors import RequestError
from seatrial.server.quick import QuickReader
from seatrial.server.requests import InferRequest, parse_infer, parse_json

INPUTS = (
    InputColumn(name="id", type="string", required=True),
    InputColumn(name="at", type="time", required=True),
    InputColumn(name="x", type="number", required=False),
    InputColumn(name="n", type="integer", required=False),
    InputColumn(name="on", type="boolean", required=False),
)
GOOD: dict[str, Any] = {
    "id": "mine",
    "inputs": [
        {"name": "id", "shape": [2], "datatype": "BYTES", "data": ["a", "b: c"]},
        {"name": "at", "shape": [2], "datatype": "BYTES", "data": ["2024-02-01T10:00:00Z", "2024-02-01"]},
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.5, None]},
        {"name": "n", "shape": [2], "datatype": "INT32", "data": [1, -7]},
        {"name": "on", "shape": [2], "datatype": "BOOL", "data": [True, False]},
    ],
}
READER = QuickReader(INPUTS, maximum_rows=3)


def full(body: bytes) -> InferRequest | None:
    """Read in full; None where the request is refused."""
    try:
        return parse_infer(body, INPUTS, maximum_rows=3)
    except RequestError:
        return None


_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["a", "2024-02-01T10:00:00+02:00", "\\", ":", '"', "\u00e9", "", "x" * 1001]),
    st.lists(st.integers(0, 3), max_size=2),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bodies that are right, or nearly: a few places of a good one hold anything."""
    body = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(0, 2))):
        tensor = draw(st.sampled_from(body["inputs"]))
        match draw(st.sampled_from(["item", "key", "top", "lose", "repeat", "rows"])):
            case "item":
                tensor["data"] = [draw(_values) for _ in GOOD["inputs"][0]["data"]]
            case "key":
                tensor[draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))] = draw(
                    _values
                )
            case "top":
                body[draw(st.sampled_from(["id", "outputs", "parameters", "other"]))] = draw(_values)
            case "lose":
                body["inputs"].remove(tensor)
                body["inputs"] = body["inputs"] or [tensor]
            case "repeat":
                body["inputs"].append(tensor)
            case "rows":
                shape = draw(st.sampled_from([[2], [2.0], [True], [2, 1], [1], []]))
                tensor["shape"] = shape
    try:
        text = orjson.dumps(body)
    except TypeError:  # An integer beyond 64 bits.
        text = b"{"
    if draw(st.integers(0, 4)) == 0:
        text = text.replace(b'"n"', b'"n","name":"n"', 1)
    return text


@settings(max_examples=500)
@given(bodies())
def test_quick_reading_is_the_full_reading_or_none(body: bytes) -> None:
    """Whatever comes: what the quick reader reads, the full one reads alike; what is refused it leaves alone."""
    quick = READER.read(body)
    if quick is not None:
        assert quick == full(body)
        assert [tuple(map(type, row)) for row in quick.rows] == [
            tuple(map(type, row))
            for row in full(body).rows  # type: ignore[union-attr]
        ]


def test_usual_request_is_read_quickly() -> None:
    """The usual form does not need the full reading, with an id and without."""
    assert READER.read(orjson.dumps(GOOD)) == full(orjson.dumps(GOOD))
    assert READER.read(orjson.dumps({"inputs": GOOD["inputs"]})) is not None


TEXT = orjson.dumps(GOOD)
TWICE = {
    "at the top": TEXT[:-1] + b',"id":"mine"}',
    "inputs": TEXT[:-1] + b',"inputs":[]}',
    "a tensor's name": TEXT.replace(b'"name":"x"', b'"name":"x","name":"x"'),
    "a tensor's data": TEXT.replace(b'"data":[1,-7]', b'"data":[1,-7],"data":[1,-7]'),
    "escaped": TEXT.replace(b'"data":[1,-7]', b'"data":[1,-7],"d\\u0061ta":[1,-7]'),
    "with a colon less in a text": TEXT.replace(b"b: c", b"b c").replace(
        b'"name":"x"', b'"name":"x","name":"x"'
    ),
    "with spaces": TEXT.replace(b'"name":"x"', b'"name" : "x" , "name" : "x"'),
}


@pytest.mark.parametrize("case", TWICE)
def test_keys_that_come_twice_are_never_overlooked(case: str) -> None:
    """A request in which a key comes twice is left to the full reading, which refuses it."""
    assert TWICE[case] != TEXT
    assert READER.read(TWICE[case]) is None
    with pytest.raises(RequestError, match="twice"):
        parse_json(TWICE[case])


OTHER = [
    b"",
    b"[]",
    b"1",
    b"{",
    b'{"inputs":[]}',
    TEXT.replace(b"1.5", b"NaN"),
    TEXT.replace(b"1.5", b"1e400"),
    TEXT.replace(b"1.5", b"true"),
    TEXT.replace(b"[1,-7]", b"[1.0,-7]"),
    TEXT.replace(b"[1,-7]", b"[1,2147483648]"),
    TEXT.replace(b'"a"', b'"\xff"'),
    TEXT + b"\x00",
    b"[" * 2000 + b"]" * 2000,
]


@pytest.mark.parametrize("body", OTHER)
def test_other_bodies_are_left_to_the_full_reading(body: bytes) -> None:
    """What is no request, or not plainly right, is none here."""
    assert READER.read(body) is None


@pytest.mark.parametrize("spaces", [b" ", b"\n\t"])
def test_spaces_change_nothing(spaces: bytes) -> None:
    """A request with spaces between its parts is read as one without."""
    spaced = TEXT.replace(b",", b"," + spaces).replace(b'":', b'" :' + spaces)
    assert READER.read(spaced) == full(spaced) == full(TEXT)
