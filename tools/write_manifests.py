"""Render each model of each environment from `charts/model`, for those who have kubectl and no helm.

`kubectl apply -k` cannot run helm, so what it takes is in git: `manifests/environments/ENV/MODEL/objects.yaml`,
rendered from the chart with the `values.yaml` beside it. The bundle is none of the values: `bundle.yaml`,
which `seatrial promote` writes, puts it in its place. Where the environment rolls bundles out step by step,
servers follow its record, a job leads roll-outs on, and `bundle.yaml` leaves the pods alone. ``--check`` compares
instead of writing, and a test runs it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from seatrial.delivery.declared import (
    BUNDLE_FILE,
    KUSTOMIZATION,
    OBJECTS_FILE,
    in_kustomization,
    parse_declared,
    patch,
    runs_on_seldon,
)
from seatrial.promotion.environment import EnvironmentFile

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / "manifests" / "environments"
NO_BUNDLE = "0" * 64
HEAD = "# Rendered from charts/model with values.yaml by `python tools/write_manifests.py`; change these, not this.\n"


def main() -> int:
    """Write what is not in step, or with ``--check`` say it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is old")
    parser.add_argument("folder", nargs="?", type=Path, default=ENVIRONMENTS, help="the environments' folder")
    asked = parser.parse_args()
    check: bool = asked.check
    old = []
    for values in sorted(asked.folder.glob("*/*/values.yaml")):
        for path, text in files(values).items():
            if not path.is_file() or path.read_text() != text:
                old.append(path)
                if not check:
                    path.write_text(text)
    if check:
        sys.stderr.writelines(
            f"{path.relative_to(asked.folder)} is not in step: python tools/write_manifests.py\n"
            for path in old
        )
    return 1 if old and check else 0


def files(values: Path) -> dict[Path, str]:
    """Return the files of a model in an environment that are made from others, by their paths."""
    rules = EnvironmentFile.model_validate(YAML(typ="safe").load(values.parent.parent / "environment.yaml"))
    made = {values.with_name(OBJECTS_FILE): render(values, rules)}
    bundle, model = values.with_name(BUNDLE_FILE), values.parent.name
    if bundle.is_file():
        declared = parse_declared(bundle.read_text(), model, bundle)
        seldon = runs_on_seldon(values)
        made[bundle] = patch(model, declared, in_pods=not rules.follows_record, seldon=seldon)
        kustomization = values.with_name(KUSTOMIZATION)
        if kustomization.is_file():
            made[kustomization] = in_kustomization(kustomization.read_text(), seldon=seldon)
    return made


def render(values: Path, rules: EnvironmentFile) -> str:
    """Return the objects of a model in an environment, as YAML."""
    model, environment = values.parent.name, values.parent.parent.name
    arguments = ["--set", f"model={model},environment={environment}", "--values", str(values)]
    arguments += [] if rules.follows_record else ["--set-string", f"digest={NO_BUNDLE}"]
    arguments += ["--set", "rollOut.enabled=true"] if rules.is_rolled_out else []
    done = subprocess.run(  # noqa: S603 -- the arguments are ours
        [
            os.environ.get("HELM", "helm"),
            "template",
            model.replace("_", "-"),
            str(ROOT / "charts" / "model"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    text = re.sub(r"^ *(helm\.sh/chart|helm\.sh/resource-policy): .*\n", "", done.stdout, flags=re.MULTILINE)
    text = re.sub(r"^ *annotations:\n(?=spec:)", "", text, flags=re.MULTILINE)
    text = re.sub(r"^# Source: .*\n", "", text, flags=re.MULTILINE)
    return HEAD + text.replace("managed-by: Helm", "managed-by: kustomize")


if __name__ == "__main__":
    sys.exit(main())
