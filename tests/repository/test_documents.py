import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_ROOT_ENTRIES = 25
UNMAPPED = {".dockerignore", "README.md", ".gitignore"}
"""The map itself, and what every repository has."""
NAMES_IMAGES = re.compile(
    r"src/seatrial/images\.py|charts/images\.yaml|charts/(?:.+/)?(?:values|ci/[^/]+)\.yaml|"
    r"manifests/environments/[^/]+/[^/]+/objects\.yaml|images/[^/]+/Dockerfile"
)
"""The files that may say where container images are: our own names, the list of all, and what a chart is
given, or makes of it."""

# In parts, so that this file does not hold what it looks for.
ONE_MACHINE = re.compile(r"(?<![\w.~$}-])/(?:" + "home|root|Users|work|mnt" + r")/[\w.-]+")


def _any_of(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(text) for text in texts))


PACKAGE_REGISTRIES = _any_of(
    "py" + "pi.org",
    "files.python" + "hosted.org",
    "registry.npm" + "js.org",
    "proxy.golang" + ".org",
    "index" + "-url = ",
)
IMAGE_REGISTRIES = _any_of(
    "docker" + ".io", "gh" + "cr.io", "gc" + "r.io", "qua" + "y.io", "registry.k8s" + ".io"
)


def tracked() -> list[str]:
    """Every file that git tracks or would, and that is there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


FILES = tracked()
DOCUMENTS = [name for name in FILES if name.endswith(".md")]
PROSE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = re.findall(r"^#+ +(.+?) *$", prose, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in found]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_resolve(name: str) -> None:
    """Every relative link of a document leads to a file of the repository, and to a heading that it has."""
    page = ROOT / name
    links = LINK.findall(PROSE.sub("", page.read_text()))
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or ROOT not in [target, *target.parents]:
            broken.append(link)
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
            broken.append(f"{link} (no such heading)")

    assert broken == []


def test_root_is_small() -> None:
    """The root has at most 25 entries, so that a newcomer sees all of it."""
    assert len({name.split("/")[0] for name in FILES}) <= MOST_ROOT_ENTRIES


def test_root_is_mapped() -> None:
    """Each entry of the root is named in a table of the README, and the table names nothing that is gone."""
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `")]
    named = {cell.rstrip("/") for row in rows for cell in re.findall(r"`([^`]+)`", row.split(" | ")[0])}
    entries = {name.split("/")[0] for name in FILES}

    assert entries - named - UNMAPPED == set()
    assert named - entries == set()


def _hits(pattern: re.Pattern[str], names: list[str]) -> list[str]:
    """Every place in the files that the pattern is found at."""
    found = []
    for name in names:
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{number}: {hit[0]}"
            for number, line in enumerate(lines, 1)
            if (hit := pattern.search(line))
        ]
    return sorted(found)


@pytest.mark.parametrize("pattern", [ONE_MACHINE, PACKAGE_REGISTRIES], ids=["paths", "package registries"])
def test_nothing_of_one_machine(pattern: re.Pattern[str]) -> None:
    """No file names a path that only one machine has, or a package registry that only some can reach."""
    assert _hits(pattern, FILES) == []


def test_images_are_named_in_few_places() -> None:
    """Where a container image comes from is said by the files that list images, and by no other."""
    assert _hits(IMAGE_REGISTRIES, [name for name in FILES if not NAMES_IMAGES.fullmatch(name)]) == []
