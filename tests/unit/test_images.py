from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.errors import UsageError
from seatrial.images import read_images

ONE = """
- name: store
  repository: example.com/store
  tag: "1.10"
  licence: MIT
  free: true
  purpose: keeps things
  started_by: [platform]
"""


def test_reads_the_list(tmp_path: Path) -> None:
    """An image of the list has a reference that a container engine takes."""
    (tmp_path / "images.yaml").write_text(ONE)

    (image,) = read_images(tmp_path / "images.yaml")

    assert image.reference == "example.com/store:1.10"
    assert image.started_by == ["platform"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (ONE.replace('"1.10"', "1.10"), "tag"),
        (ONE + "  licence_url: x\n", "licence_url"),
        (ONE.replace("  licence: MIT\n", ""), "licence"),
        ("- name: [", "images.yaml"),
    ],
    ids=["a number for a tag", "an unknown key", "no licence", "no YAML"],
)
def test_refuses_what_is_no_list(tmp_path: Path, text: str, named: str) -> None:
    """A list that is malformed is refused with the place, also a tag that YAML reads as a number."""
    (tmp_path / "images.yaml").write_text(text)

    with pytest.raises(UsageError, match=named):
        read_images(tmp_path / "images.yaml")


def test_says_that_there_is_no_list(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(UsageError, match="No such file"):
        read_images(tmp_path / "images.yaml")
