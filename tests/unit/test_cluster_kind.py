"""What is read from kind's words, and which images an installation needs."""

from __future__ import annotations

import pytest

from seatrial.cluster.image_check import listed_images
from seatrial.cluster.install import images_of
from seatrial.cluster.kind import NAME_VARIABLE, configured_name, steps_of
from seatrial.images import PIPELINE_IMAGE, own_image

CREATE = """\
Creating cluster "seatrial" ...
 • Ensuring node image (kindest/node:v1.34.0) 🖼  ...
 ✓ Ensuring node image (kindest/node:v1.34.0) 🖼
 • Preparing nodes 📦   ...
 ✓ Preparing nodes 📦
 • Waiting ≤ 3m0s for control-plane = Ready ⏳  ...
 • Ready after 3s 💚
Set kubectl context to "kind-seatrial"
"""


def test_the_steps_of_kind_are_told_in_its_words() -> None:
    """In their order, without pictures, and apart from what else it prints."""
    assert steps_of(CREATE) == [
        ("Ensuring node image (kindest/node:v1.34.0)", False),
        ("Ensuring node image (kindest/node:v1.34.0)", True),
        ("Preparing nodes", False),
        ("Preparing nodes", True),
        ("Waiting ≤ 3m0s for control-plane = Ready", False),
        ("Ready after 3s", True),
    ]


def test_the_variable_of_kind_names_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the configuration does."""
    monkeypatch.delenv(NAME_VARIABLE, raising=False)
    assert configured_name() == "seatrial"
    monkeypatch.setenv(NAME_VARIABLE, "pier")
    assert configured_name() == "pier"


def test_images_that_are_handed_on_are_needed_too() -> None:
    """A container's, one that a variable names for a later pod, and that of the steps where there are pipelines."""
    driver = next(image.reference for image in listed_images() if image.name == "kfp-driver")
    container = {"image": "registry.example/api:1", "env": [{"name": "V2_DRIVER_IMAGE", "value": driver}]}
    first = {"image": own_image("server")}
    pod = {"spec": {"initContainers": [first], "containers": [container]}}
    api = {"kind": "Deployment", "spec": {"template": pod}}
    service = {"kind": "Service", "metadata": {"name": "ml-pipeline"}, "spec": {"ports": []}}

    assert images_of([api]) == {"registry.example/api:1", driver, own_image("server")}
    assert images_of([api, service]) == {
        "registry.example/api:1",
        driver,
        own_image("server"),
        PIPELINE_IMAGE,
    }
