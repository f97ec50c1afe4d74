"""A server to be put under load: it serves one bundle on this machine, and leaves nothing behind.

It is a process of its own, as in service, and writes its log to disk before it answers. As a container it runs in
the image and with the limits of the environment that judges the bundle, so that a library that is another one
there, or too little memory, is found before clients find it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seatrial.bundle import Bundle, TrustRoot
from seatrial.bundle.signing import TRUST_VARIABLE, create_private_file
from seatrial.cluster.commands import find
from seatrial.cluster.kind import engine
from seatrial.delivery.declared import ServingImage
from seatrial.errors import ToolError
from seatrial.feedback.concealing import KEY_BYTES, KEY_VARIABLE
from seatrial.workspace import Workspace

START_SECONDS = 120.0
NEVER = "86400"
NAME = "seatrial-load-"
"""How the names of its containers begin."""
_SCRATCH = "/scratch"
_STORE_VARIABLES = "AWS_"
"""How the names of the variables begin by which a server finds its object store."""
_UNTIL_INPUT_ENDS = (
    'exec 3<&0; seatrial "$@" & server=$!; (cat <&3 >/dev/null; kill -9 $server) & wait $server'
)
"""Serve for as long as somebody holds the container's standard input open: an engine keeps one whose client died."""


@contextmanager
def started(
    bundle: Bundle, workspace: Workspace, trust: TrustRoot, image: ServingImage | None = None
) -> Iterator[str]:
    """Serve a bundle for as long as the context lasts; yields host and port.

    Args:
        bundle: The bundle.
        workspace: Where it and the tables lie that its features read.
        trust: The makers of bundles that are trusted.
        image: The image that it runs in, as a container; without it, it is a process of this installation.

    Raises:
        ToolError: if it does not start, or no container engine answers.
    """
    with tempfile.TemporaryDirectory(prefix=NAME) as scratch:
        folder = Path(scratch)
        trust.write(folder / "trusted")
        create_private_file(folder / "privacy-key", secrets.token_bytes(KEY_BYTES))
        if image is None:
            command = [sys.executable, "-m", "seatrial", *_arguments(bundle, workspace, scratch)]
            command.append("--exit-with-parent")
        else:
            command = [*_container(image, workspace, scratch), *_arguments(bundle, workspace, _SCRATCH)]
        with (folder / "errors").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 -- the arguments are ours
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=output,
                env={**os.environ, **workspace.access.variables, **_settings(scratch)},
            )
        try:
            yield _address(process, folder, bundle)
        finally:
            _end(process, container=image is not None)


def _arguments(bundle: Bundle, workspace: Workspace, scratch: str) -> list[str]:
    command = ["serve", bundle.manifest.model, "--bundle", bundle.digest, "--workspace", workspace.root]
    command += ["--port", "0", "--address-file", f"{scratch}/address"]
    return [*command, "--log-folder", f"{scratch}/log", "--ship-every", NEVER]


def _settings(scratch: str) -> dict[str, str]:
    return {TRUST_VARIABLE: f"{scratch}/trusted", KEY_VARIABLE: f"{scratch}/privacy-key"}


def _container(image: ServingImage, workspace: Workspace, scratch: str) -> list[str]:
    """Return the command that runs a container of an image, up to the server's arguments.

    It has the machine's network, since a port that an engine forwards would be measured with the server. Its user is
    ours, to whom what it writes then belongs.
    """
    found = engine()
    command = [
        find(found),
        "run",
        "--rm",
        "--name",
        Path(scratch).name,
        "--interactive",
        "--network",
        "host",
        "--pull",
        "missing",
    ]
    command += ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]  # noqa: S108 -- the container's
    command += ["--security-opt", "no-new-privileges", "--user", f"{os.getuid()}:{os.getgid()}"]
    if found == "podman" and os.getuid() != 0:
        command += ["--userns", "keep-id"]
    if image.processors is not None:
        command += ["--cpus", str(image.processors)]
    if image.memory is not None:
        command += ["--memory", str(image.memory)]
    command += ["--volume", f"{scratch}:{_SCRATCH}"]
    if workspace.is_local:
        command += ["--volume", f"{workspace.folder}:{workspace.root}:ro"]
    # Their values go by the engine's own environment: arguments can be read by all who are on the machine.
    for name in sorted({**os.environ, **workspace.access.variables}):
        if name.startswith(_STORE_VARIABLES):
            command += ["--env", name]
    for name, value in _settings(_SCRATCH).items():
        command += ["--env", f"{name}={value}"]
    return [*command, "--entrypoint", "sh", image.reference, "-c", _UNTIL_INPUT_ENDS, "serve"]


def _address(process: subprocess.Popen[bytes], folder: Path, bundle: Bundle) -> str:
    """Return where it listens, as soon as it does."""
    address = folder / "address"
    deadline = time.monotonic() + START_SECONDS
    while not address.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            said = " ".join((folder / "errors").read_text(errors="replace").split())
            raise ToolError(f"The server of bundle {bundle.digest[:12]} did not start: {said[-300:]}")
        time.sleep(0.05)
    return address.read_text().removeprefix("http://")


def _end(process: subprocess.Popen[bytes], *, container: bool) -> None:
    """Kill it: a stop would ship what was asked here as if clients had asked it."""
    assert process.stdin is not None
    process.stdin.close()
    if not container:
        process.kill()
    process.wait()
