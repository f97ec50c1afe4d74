"""Keep charts and list of images in step: tags into the charts' values, our version and the users into the list.

A chart shall be readable and usable alone, so its values name each image in full; a version that
stands in several files is forgotten in one of them. So a person changes ``charts/images.yaml``,
this script the rest. ``--check`` compares instead of writing, and a test runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from seatrial import __version__
from seatrial.images import OWN_IMAGES, REPOSITORY, read_images

CHARTS = Path(__file__).resolve().parents[1] / "charts"
LIST = CHARTS / "images.yaml"
AT_RUN_TIME = " at run time"


def main() -> int:
    """Write what is not in step, or with ``--check`` say it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is old")
    check = parser.parse_args().check
    yaml = _yaml()
    listed = yaml.load(LIST)
    values = {path: yaml.load(path) for path in sorted(CHARTS.rglob("values.yaml"))}
    before = [_dumped(content) for content in (listed, *values.values())]
    wrong = _bring_in_step(listed, values)
    after = [_dumped(content) for content in (listed, *values.values())]
    for path, old, new in zip((LIST, *values), before, after, strict=True):
        if old != new and check:
            wrong.append(f"{path.relative_to(CHARTS)} is not in step: python tools/write_chart_images.py")
        elif old != new:
            path.write_text(new)
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    read_images(LIST)
    return 1 if wrong else 0


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    return yaml


def _dumped(content: Any) -> str:
    from io import StringIO

    yaml = _yaml()
    if isinstance(content, dict):
        yaml.indent(mapping=2, sequence=4, offset=2)
    text = StringIO()
    yaml.dump(content, text)
    return text.getvalue()


def _bring_in_step(listed: list[dict[str, Any]], values: dict[Path, Any]) -> list[str]:
    """Change list and values where they differ; return what a person has to put right."""
    own = {f"{REPOSITORY}/{name}": __version__ for name in OWN_IMAGES}
    by_repository = {image["repository"]: image for image in listed}
    users: dict[str, list[str]] = {repository: [] for repository in by_repository}
    for repository, version in own.items():
        by_repository[repository]["tag"] = version
    wrong = []
    for path, content in values.items():
        chart = path.parent.relative_to(CHARTS).as_posix()
        for value in _image_values(content):
            repository = value["repository"]
            if repository not in by_repository:
                wrong.append(f"{chart} names {repository}, which {LIST.name} does not list")
                continue
            if str(value["tag"]) != str(by_repository[repository]["tag"]):
                value["tag"] = _quoted(by_repository[repository]["tag"])
            if chart not in users[repository]:
                users[repository].append(chart)
    for image in listed:
        others = [name for name in image["started_by"] if name.endswith(AT_RUN_TIME)]
        if list(image["started_by"]) != users[image["repository"]] + others:
            image["started_by"] = CommentedSeq(users[image["repository"]] + others)
            image["started_by"].fa.set_flow_style()
    return wrong


def _image_values(content: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping of a document that names an image: one with ``repository`` and ``tag``."""
    if isinstance(content, dict):
        if {"repository", "tag"} <= content.keys():
            yield content
        for value in content.values():
            yield from _image_values(value)
    elif isinstance(content, list):
        for value in content:
            yield from _image_values(value)


def _quoted(tag: str) -> str:
    """Quote a tag that would be read as a number."""
    return DoubleQuotedScalarString(tag) if tag.replace(".", "", 1).isdigit() else tag


if __name__ == "__main__":
    raise SystemExit(main())
