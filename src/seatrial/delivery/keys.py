"""Who is trusted in an environment: public keys beside its rules, so that git shows each change of them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from seatrial.bundle.signing import key_id, make_key, public_key_file, public_keys, read_signer
from seatrial.delivery.declared import KUSTOMIZATION
from seatrial.errors import UsageError
from seatrial.promotion.environment import EnvironmentFolder, open_environment

PERSON = r"[a-z][a-z0-9.-]{0,47}"
TRUSTED, APPROVERS = "trusted", "approvers"
CONFIG_MAPS = {TRUSTED: "trusted-makers", APPROVERS: "approvers"}
"""Of each folder of keys the ConfigMap by which pods know them: servers whom to trust, a roll-out's job also who may
approve."""


def trust_maker(name: str, key: Path) -> Path:
    """Trust a maker of bundles in an environment, also in what runs on Kubernetes.

    Args:
        name: Name of the environment.
        key: File of the public key, in PEM form.

    Returns:
        The file that says so in git.

    Raises:
        UsageError: if there is no such file or no such environment.
        StoreError: if it is no Ed25519 public key.
    """
    environment = open_environment(name)
    if not key.is_file():
        raise UsageError(f"There is no file {key}.")
    found = public_keys(key.parent)[key.stem]
    target = environment.folder / TRUSTED / f"{key_id(found)}.pem"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(key.read_bytes())
    _list_keys(environment, TRUSTED)
    return target


def _list_keys(environment: EnvironmentFolder, folder: str) -> None:
    """List a folder's keys in the ConfigMap that kustomize makes of them, where the environment has one."""
    path = environment.folder / KUSTOMIZATION
    if not path.is_file():
        return
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    content: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"))
    files = sorted(f"{folder}/{file.name}" for file in (environment.folder / folder).glob("*.pem"))
    for generator in content.get("configMapGenerator", []):
        if generator["name"] == CONFIG_MAPS[folder] and generator.get("files") != files:
            generator["files"] = files
            written = io.StringIO()
            yaml.dump(content, written)
            path.write_text(written.getvalue(), encoding="utf-8")


def add_approver(name: str, person: str, key: Path) -> Path:
    """Let a person approve in an environment, also in what runs on Kubernetes.

    Args:
        name: Name of the environment.
        person: The person's name.
        key: File of the person's private key; it is made if it is not there.

    Returns:
        The file that says so in git.

    Raises:
        UsageError: if there is no such environment, the name is none, or is another person's key already.
        StoreError: if the key cannot be read or made.
    """
    environment = open_environment(name)
    if not re.fullmatch(PERSON, person):
        raise UsageError(f"A person's name must be like alice or alice.smith. Got {person!r} instead.")
    if not key.exists():
        make_key(key)
    signer = read_signer(key)
    target = environment.folder / APPROVERS / f"{person}.pem"
    there = {other: key_id(public) for other, public in public_keys(target.parent).items()}
    if (other := next((o for o, known in there.items() if known == signer.name), person)) != person:
        raise UsageError(f"The key {key} is that of {other} already: each person has a key of their own.")
    if there.get(person, signer.name) != signer.name:
        raise UsageError(
            f"{person} has another key in {environment.name} already.",
            remedy=f"If it is to be replaced, delete {target} first: its approvals will not count any more.",
        )
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(public_key_file(key.read_bytes())[1])
    _list_keys(environment, APPROVERS)
    return target
