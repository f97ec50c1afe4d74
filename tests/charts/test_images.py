from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.images import OWN_IMAGES, ListedImage, own_image, read_images

ROOT = Path(__file__).parents[2]
IMAGES = read_images(ROOT / "charts" / "images.yaml")


def test_charts_and_list_are_in_step() -> None:
    """Every image of a chart's values is on the list with that tag, and the list names the charts that use it."""
    found = subprocess.run(
        [sys.executable, ROOT / "tools" / "write_chart_images.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (found.returncode, found.stderr) == (0, "")


def test_own_images_are_on_the_list() -> None:
    """Our own images are listed under the names that the package gives them."""
    references = {image.reference for image in IMAGES}

    assert {own_image(name) for name in OWN_IMAGES} <= references


@pytest.mark.parametrize("image", IMAGES, ids=[image.name for image in IMAGES])
def test_tags_are_versions(image: ListedImage) -> None:
    """No tag moves: each one names a version."""
    assert any(character.isdigit() for character in image.tag)
    assert image.tag not in {"latest", "main", "master", "edge", "stable"}


def test_names_are_given_once() -> None:
    """A name and a repository stand for one image each."""
    assert len({image.name for image in IMAGES}) == len(IMAGES)
    assert len({image.repository for image in IMAGES}) == len(IMAGES)


def test_the_image_of_steps_has_the_launcher_of_the_list() -> None:
    """It is of the version that Kubeflow Pipelines would hand the steps."""
    (launcher,) = (image for image in IMAGES if image.name == "kfp-launcher")
    dockerfile = (ROOT / "images" / "pipeline" / "Dockerfile").read_text()

    assert f"ARG KUBEFLOW_PIPELINES={launcher.tag}\n" in dockerfile
    assert f"FROM {launcher.repository}:${{KUBEFLOW_PIPELINES}} AS launcher\n" in dockerfile
