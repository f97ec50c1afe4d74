"""Container images: the names of our own, and the list of all that a cluster pulls.

The names of our own are said here and nowhere else. ``charts/images.yaml`` is the list of all, with
the licence of each and what it is for; ``tools/write_chart_images.py`` keeps the charts in step with it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from seatrial import __version__
from seatrial.errors import UsageError

REPOSITORY = "ghcr.io/seatrial"
OWN_IMAGES = ("pipeline", "server", "mlflow")
"""Our images, by the folders below ``images/`` that they are built from."""
BASE_IMAGE = "docker.io/library/python:3.11-slim"
"""What ours are built upon, where nothing else is named."""


def own_image(name: str) -> str:
    """Return the full name of one of our images at this version, such as ``.../server:0.1.0``."""
    return f"{REPOSITORY}/{name}:{__version__}"


PIPELINE_IMAGE = os.environ.get("SEATRIAL_PIPELINE_IMAGE", own_image("pipeline"))
"""The image that pipeline steps run in on a cluster."""


DOCKER_HUB = "docker.io"
"""The registry whose name engines leave away."""
DOCKER_HUB_HOST = "registry-1.docker.io"
"""Where that registry answers."""


class ListedImage(BaseModel):
    """An image of ``charts/images.yaml``.

    Attributes:
        name: What it is called in messages.
        repository: Where it is pulled from, without a tag.
        tag: Its tag.
        licence: SPDX expression of what the image is there for.
        free: Whether that licence is a free one.
        purpose: What it is for, as the end of "it is there for ...".
        started_by: Folders below ``charts/`` whose values name it, or who else starts it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str
    repository: str
    tag: str
    licence: str
    free: bool
    purpose: str
    started_by: list[str]

    @property
    def reference(self) -> str:
        """Repository and tag, as a container engine takes it."""
        return f"{self.repository}:{self.tag}"


def read_images(path: Path) -> list[ListedImage]:
    """Read the list of images.

    Args:
        path: The file ``charts/images.yaml``.

    Raises:
        UsageError: if it cannot be read, or is no such list.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content: Any = YAML(typ="safe").load(path)
        return TypeAdapter(list[ListedImage]).validate_python(content)
    except OSError as error:
        raise UsageError(f"The list of images {path} cannot be read: {error.strerror}.") from error
    except (YAMLError, ValidationError) as error:
        raise UsageError(f"{path} is no list of images: {error}.") from error
