"""What a model and an image are made of, as one digest each: the same digest, the same thing.

Python files count by their syntax tree and a contract by what it says, so a comment, a blank line or
another order of keys makes no other model. An image counts by the bytes of what its Dockerfile
copies: what is built from the same bytes need not be built again.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson

from seatrial.continuous_integration.changes import MODELS
from seatrial.contract.load import load_contract
from seatrial.delivery.git import git
from seatrial.errors import UsageError

RECIPE = ("components", "pipelines", "src/seatrial", "requirements/pipeline.txt")
"""What all models are made with, beside a model's own folder."""
INPUTS_LABEL = "io.seatrial.inputs"
"""Label of an image that says what it was built from."""
_COPY = re.compile(r"^COPY\s+(?!--from)(.+)$", re.MULTILINE)
_CONTRACT = "model.yaml"


def recipe_digest(project: Path, model: str, *, as_of: str) -> str:
    """Return the SHA-256 of all that decides which bundle comes out of a model's sample run.

    Args:
        project: The project's folder.
        model: Name of the model.
        as_of: Instant of the run: it decides which rows of a growing source are learned from.

    Raises:
        ContractError: if the model's contract is wrong.
        ToolError: if git is missing or failed.
    """
    total = hashlib.sha256(as_of.encode())
    for path in _files(project, f"{MODELS}/{model}", *RECIPE):
        if path.endswith(".md"):
            continue
        total.update(f"\0{path}\0".encode())
        total.update(_meaning(project / path))
    return total.hexdigest()


def image_inputs(project: Path, image: str) -> str:
    """Return the SHA-256 of what an image of ours is built from.

    Args:
        project: The project's folder.
        image: The image's folder below ``images/``.

    Raises:
        UsageError: if there is no such image.
        ToolError: if git is missing or failed.
    """
    dockerfile = f"images/{image}/Dockerfile"
    if not (project / dockerfile).is_file():
        raise UsageError(f"There is no image {image!r}: {dockerfile} is not there.")
    text = (project / dockerfile).read_text(encoding="utf-8")
    sources = sorted({source for line in _COPY.findall(text) for source in line.split()[:-1]})
    total = hashlib.sha256()
    for path in _files(project, dockerfile, *sources):
        total.update(f"\0{path}\0".encode())
        total.update(hashlib.sha256((project / path).read_bytes()).digest())
    return total.hexdigest()


def _files(project: Path, *below: str) -> Iterator[str]:
    """The files there that git has or would take, in one order for all machines."""
    listed = git(project, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *below)
    for path in sorted({path for path in listed.split("\0") if path}):
        if (project / path).is_file():  # Git still lists what was removed and not committed.
            yield path


def _meaning(path: Path) -> bytes:
    """What a file says, as a digest."""
    content = path.read_bytes()
    if path.suffix == ".py":
        with suppress(SyntaxError):  # Whoever runs it will say so; until then its bytes stand for it.
            content = ast.dump(ast.parse(content)).encode()
    elif path.name == _CONTRACT:
        said = load_contract(path).contract.model_dump(mode="json")
        content = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).digest()
