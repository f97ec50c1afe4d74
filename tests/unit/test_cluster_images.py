"""Whether an image could be pulled, asked of a registry without pulling it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from seatrial.cluster.image_check import check_images, why_not_pulled
from seatrial.cluster.kind import familiar
from seatrial.images import DOCKER_HUB, ListedImage

TOKEN = "given-to-anybody"


class Registry(BaseHTTPRequestHandler):
    """A registry that has one image and gives anybody a token for it, as the public ones do."""

    def do_HEAD(self) -> None:
        known = self.path == "/v2/there/image/manifests/1.0"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_response(401)
            host = f"http://{self.headers['Host']}"
            self.send_header(
                "WWW-Authenticate", f'Bearer realm="{host}/token",service="s",scope="repository:x:pull"'
            )
        else:
            self.send_response(200 if known and "index.v1+json" in self.headers["Accept"] else 404)
        self.end_headers()

    def do_GET(self) -> None:
        assert self.path.startswith("/token?service=s&scope=repository")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"token": TOKEN}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's name for it
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    """Host and port of the registry."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_image_that_is_there_can_be_pulled(registry: str) -> None:
    """The registry is asked with the token that it gives to anybody."""
    assert why_not_pulled(f"{registry}/there/image:1.0") == ""


def test_an_image_that_is_not_there_is_told_with_the_answer(registry: str) -> None:
    """A wrong tag is what the registry says it is."""
    assert "answers 404" in why_not_pulled(f"{registry}/there/image:9.9")


def test_a_registry_that_is_away_is_told(registry: str) -> None:
    """No way to the registry is another problem than no image."""
    assert "can't be reached" in why_not_pulled("127.0.0.1:1/there/image:1.0")


def test_what_is_nowhere_is_missing_where_no_registry_may_be_asked(registry: str) -> None:
    """Without a cluster, on this machine alone, an image that nobody built is missing."""
    image = ListedImage(
        name="x",
        repository=f"{registry}/there/image",
        tag="1.0",
        licence="Apache-2.0",
        free=True,
        purpose="tests",
        started_by=[],
    )

    (asked,) = check_images([image], None)
    (offline,) = check_images([image], None, ask=False)

    assert (asked.where, asked.why) == ("can be pulled", "")
    assert offline.where == "can't be pulled"


def test_docker_lists_its_own_images_by_a_short_name() -> None:
    """The registry's name and its folder for official images are left away."""
    assert familiar(f"{DOCKER_HUB}/library/mariadb:10.11") == "mariadb:10.11"
    assert familiar(f"{DOCKER_HUB}/prom/prometheus:v2") == "prom/prometheus:v2"
    assert familiar("example.org/a:1") == "example.org/a:1"
