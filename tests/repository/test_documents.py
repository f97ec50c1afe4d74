import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_ROOT_ENTRIES = 25
UNMAPPED = {"README.md", ".gitignore"}
"""The map itself, and what every repository has."""
NAMES_IMAGES = "src/seatrial/images.py"
"""The only file that says where our own images are."""

# In parts, so that this file does not hold what it looks for.
ONE_MACHINE = re.compile(r"(?<![\w.~$}-])/(?:" + "home|root|Users|work|mnt" + r")/[\w.-]+")
REGISTRY_HOSTS = re.compile(
    "|".join(
        re.escape(host)
        for host in (
            "py" + "pi.org",
            "files.python" + "hosted.org",
            "docker" + ".io",
            "gh" + "cr.io",
            "gc" + "r.io",
            "qua" + "y.io",
            "registry.k8s" + ".io",
            "registry.npm" + "js.org",
            "index" + "-url = ",
        )
    )
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


@pytest.mark.parametrize(
    ("pattern", "what"),
    [(ONE_MACHINE, "paths of one machine"), (REGISTRY_HOSTS, "hosts of registries")],
    ids=["paths", "hosts"],
)
def test_nothing_of_one_machine(pattern: re.Pattern[str], what: str) -> None:
    """No file names a path that only one machine has, or a registry that only some can reach."""
    found = []
    for name in set(FILES) - {NAMES_IMAGES}:
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{number}: {hit[0]}"
            for number, line in enumerate(lines, 1)
            if (hit := pattern.search(line))
        ]

    assert sorted(found) == [], what
