"""Durations: what is written is what is read."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.contract.schema import Contract, Section, format_duration, parse_duration

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@given(st.integers(1, 5_000), st.sampled_from(sorted(UNITS)))
def test_a_duration_survives_writing_and_reading(count: int, unit: str) -> None:
    """``parse(format(x))`` is ``x``, and the length is the count times its unit."""
    length = parse_duration(f"{count}{unit}")

    assert length == timedelta(seconds=count * UNITS[unit])
    assert parse_duration(format_duration(length)) == length


@given(st.integers(1, 10**9))
def test_a_duration_is_written_in_its_largest_whole_unit(seconds: int) -> None:
    """``86400s`` is written ``1d``, and nothing is rounded."""
    written = format_duration(timedelta(seconds=seconds))

    assert int(written[:-1]) * UNITS[written[-1]] == seconds
    assert not any(seconds % size == 0 and size > UNITS[written[-1]] for size in (60, 3_600, 86_400))


@pytest.mark.parametrize(
    "text",
    ["", "d", "0d", "-1d", "1.5d", "1 d", "1d ", "1D", "1y", "01d", "1d1h", 5, "1d\n", "٣d", None, True],
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """A whole number and one of five units, and nothing else."""
    with pytest.raises(ValueError, match="such as 28d or 6h"):
        parse_duration(text)


def test_a_duration_of_more_than_a_century_is_refused() -> None:
    """What is longer is a mistake, and would not fit a table's times."""
    with pytest.raises(ValueError, match="at most 36500d"):
        parse_duration("999999w")


def _sections(section: type[Section]) -> set[type[Section]]:
    from seatrial.contract.load import _models_in

    found = {section}
    for field in section.model_fields.values():
        for part in _models_in(field.annotation):
            found |= _sections(part)  # type: ignore[arg-type]
    return found


def test_every_section_is_closed_and_strict() -> None:
    """No section ignores an unknown key, takes a text for a number, or lets NaN through."""
    for section in _sections(Contract):
        config = section.model_config
        assert (config["extra"], config["strict"], config["allow_inf_nan"]) == ("forbid", True, False), (
            section
        )


def test_every_key_says_what_it_means() -> None:
    """The reference is rendered from the descriptions, so each key or its section has one."""
    for section in _sections(Contract):
        assert section.__doc__, section
        for name, field in section.model_fields.items():
            described = field.description or any(True for _ in _sections_in(field.annotation))
            assert described, f"{section.__name__}.{name}"


def _sections_in(annotation: object) -> set[type[Section]]:
    from seatrial.contract.load import _models_in

    return set(_models_in(annotation))  # type: ignore[arg-type]
