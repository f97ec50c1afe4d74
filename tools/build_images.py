"""Build our container images, with podman or docker, whichever is there.

Names and version are those of ``seatrial.images``; the labels that are the same for all images are
said here. ``make images`` calls this.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from seatrial import __version__
from seatrial.continuous_integration import INPUTS_LABEL, image_inputs
from seatrial.images import BASE_IMAGE, OWN_IMAGES, own_image

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("podman", "docker")
LABEL = "org.opencontainers.image"


def main() -> int:
    """Build the images that were asked for and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(OWN_IMAGES)}; else all")
    parser.add_argument("--engine", choices=ENGINES, help="else the first of them that answers")
    parser.add_argument("--base-image", default=BASE_IMAGE, help="default: %(default)s")
    parser.add_argument("--network", default="host", help="network of the build; default: %(default)s")
    options = parser.parse_args()
    if unknown := set(options.images) - set(OWN_IMAGES):
        parser.error(f"there is no image {', '.join(sorted(unknown))}; there are {', '.join(OWN_IMAGES)}")
    engine = options.engine or next((name for name in ENGINES if _answers(name)), None)
    if engine is None:
        parser.error("neither podman nor docker answers; install one, or start its service")
    for name in options.images or OWN_IMAGES:
        print(f"Building {own_image(name)}", flush=True)
        command = [engine, "build", "--network", options.network, "--tag", own_image(name)]
        command += ["--file", f"images/{name}/Dockerfile", "--build-arg", f"BASE_IMAGE={options.base_image}"]
        for label, value in _labels(options.base_image).items():
            command += ["--label", f"{LABEL}.{label}={value}"]
        command += ["--label", f"{INPUTS_LABEL}={image_inputs(ROOT, name)}"]
        done = subprocess.run([*command, "."], cwd=ROOT, check=False)  # noqa: S603
        if done.returncode:
            return done.returncode
    return 0


def _answers(engine: str) -> bool:
    if shutil.which(engine) is None:
        return False
    command = [engine, "info"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def _labels(base_image: str) -> dict[str, str]:
    """What every image of ours says of itself; where it comes from only if that is a public address."""
    labels = {
        "version": __version__,
        "revision": _git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"),
        "source": _git("config", "--get", "remote.origin.url"),
        "licenses": "Apache-2.0",
        "base.name": base_image,
    }
    return {name: value for name, value in labels.items() if name != "source" or value.startswith("https://")}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
