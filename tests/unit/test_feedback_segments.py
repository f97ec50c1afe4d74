"""The format of the feedback log's segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.feedback.segments import MAGIC, Scan, frame, scan

RECORDS = [b'{"outcomes":{"value":[1.0]}}', b"", '{"a":"\u00e9\u4f60"}'.encode()]
SEGMENT = b"".join(frame(payload) for payload in RECORDS)
ENDS = [sum(len(frame(payload)) for payload in RECORDS[:count]) for count in range(4)]


def test_whole_segment_gives_all_records() -> None:
    """Reading a segment gives the payloads that were written, in their order."""
    assert scan(SEGMENT) == Scan(RECORDS, damaged=0, torn=0)
    assert scan(b"") == Scan([], damaged=0, torn=0)


@pytest.mark.parametrize("length", range(len(SEGMENT)))
def test_torn_tail_keeps_all_before_it(length: int) -> None:
    """A segment cut at any byte gives every record that is whole, and counts the rest as torn."""
    whole = max(count for count in range(4) if ENDS[count] <= length)
    assert scan(SEGMENT[:length]) == Scan(RECORDS[:whole], damaged=0, torn=length - ENDS[whole])


def test_any_flipped_bit_costs_one_record_and_never_makes_a_wrong_one() -> None:
    """Whichever bit is flipped, the record it is in is lost, the other two are read as they were."""
    for bit in range(8 * len(SEGMENT)):
        damaged = bytearray(SEGMENT)
        damaged[bit // 8] ^= 1 << bit % 8
        hit = next(count for count in range(3) if bit // 8 < ENDS[count + 1])
        found = scan(bytes(damaged))
        assert found.payloads == RECORDS[:hit] + RECORDS[hit + 1 :], bit
        size = ENDS[hit + 1] - ENDS[hit]
        assert (found.damaged, found.torn) == ((size, 0) if hit < 2 else (0, size)), bit


def test_payload_cannot_forge_a_record() -> None:
    """A client's text within a damaged record is never taken for a record of its own."""
    forged = frame(b'{"outcomes":{"value":[0.0]}}').decode("latin-1")
    payload = ('{"inputs":"' + forged + '"}').encode()
    assert MAGIC not in payload
    broken = bytearray(frame(payload))
    broken[-1] ^= 1
    assert scan(bytes(broken) + frame(b"{}")).payloads == [b"{}"]


@given(st.lists(st.text().map(str.encode), max_size=6), st.binary(max_size=40), st.data())
def test_noise_between_records_is_skipped(payloads: list[bytes], noise: bytes, data: st.DataObject) -> None:
    """Whatever stands between two records, all records are found and the noise is counted."""
    place = data.draw(st.integers(0, len(payloads)))
    before, after = payloads[:place], payloads[place:]
    content = b"".join(map(frame, before)) + noise + b"".join(map(frame, after))
    if noise.startswith(MAGIC):
        return
    found = scan(content)
    assert found.payloads == payloads
    assert found.damaged + found.torn == len(noise)


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(content: bytes) -> None:
    """Reading never fails, and every byte is a record's, damaged, or torn."""
    found = scan(content)
    assert sum(len(frame(p)) for p in found.payloads) + found.damaged + found.torn == len(content)
