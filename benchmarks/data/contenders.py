"""Run contenders, each in a process and an environment of its own."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build"
RESULTS = BUILD / "benchmarks"
PEERS = BUILD / "peers"
OURS = "ours"
"""Name of the environment that Seatrial itself runs in."""

# Telemetry off and every home under build/, by the variables that each peer documents.
_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "FEAST_USAGE": "False",
    "METAFLOW_HOME": str(PEERS / "metaflow-home"),
    "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(PEERS / "metaflow-home"),
    "METAFLOW_DEFAULT_DATASTORE": "local",
    "METAFLOW_DEFAULT_METADATA": "local",
    "METAFLOW_USER": "benchmark",
    "ZENML_CONFIG_PATH": str(PEERS / "zenml-home"),
    "ZENML_ANALYTICS_OPT_IN": "false",
    "AUTO_OPEN_DASHBOARD": "false",
}


@dataclass(frozen=True)
class Contender:
    """One way of doing the same work.

    Attributes:
        name: How tables and pictures call it.
        script: Its script, below this folder.
        environment: ``ours``, or the name of a peer's requirements.
        repeats: How often it is timed.
        warm_ups: How often it runs before.
    """

    name: str
    script: str
    environment: str = OURS
    repeats: int = 3
    warm_ups: int = 1


@dataclass(frozen=True)
class Seen:
    """What a contender showed.

    Attributes:
        contender: Which one.
        seconds: Of each repeat.
        peak_mib: Most memory that its process held, inputs included.
        versions: Of the libraries that count.
        answers: Its answers, if it writes any.
        facts: Whatever else it wrote down.
    """

    contender: Contender
    seconds: list[float]
    peak_mib: float
    versions: dict[str, str]
    answers: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)

    def to_json(self) -> dict[str, Any]:
        """What goes into the file of results."""
        return {
            "seconds": self.seconds,
            "median": self.median,
            "peak_mib": round(self.peak_mib),
            "versions": self.versions,
            **self.facts,
        }


def python_of(environment: str) -> Path:
    """Return the Python of an environment, making a peer's from its hashed requirements where it is not there."""
    if environment == OURS:
        return Path(sys.executable)
    requirements = HERE / "requirements" / f"{environment}.txt"
    folder = PEERS / environment
    python, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"making the environment of {environment} from {requirements.relative_to(ROOT)}", flush=True)
        uv = Path(sys.executable).with_name("uv")
        _call([uv, "venv", "--quiet", "--clear", "--python", "3.11", folder])
        _call([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, requirements])
        stamp.write_text(digest)
    return python


def run(contender: Contender, inputs: Path, results: Path) -> Seen:
    """Run a contender on inputs.

    Raises:
        SystemExit: if it fails; the end of what it printed is shown.
    """
    name = Path(contender.script).stem
    out = results / f"{name}.json"
    results.mkdir(parents=True, exist_ok=True)
    for home in ("metaflow-home", "zenml-home"):
        (PEERS / home).mkdir(parents=True, exist_ok=True)
    command = [
        *(python_of(contender.environment), HERE / contender.script),
        *("--inputs", inputs, "--scratch", results / f"{name}-scratch", "--out", out),
        *("--repeats", str(contender.repeats), "--warm-ups", str(contender.warm_ups)),
    ]
    environment = {**os.environ, **_SETTINGS, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(  # noqa: S603 -- our own scripts
        [str(part) for part in command],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{contender.name} failed with {done.returncode}:\n{done.stdout[-3000:]}")
    content = json.loads(out.read_text())
    known = {key: content.pop(key) for key in ("seconds", "peak_mib", "versions")}
    return Seen(contender, answers=out.with_suffix(".parquet"), facts=content, **known)


def machine() -> dict[str, Any]:
    """Say what all of this ran on."""
    processor = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        lines = [line for line in described.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].split(":", 1)[1].strip() if lines else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def _call(command: list[Any]) -> None:
    subprocess.run([str(part) for part in command], check=True)  # noqa: S603 -- our own uv
