"""Bundles: one changed bit, one file more or less, or one signature less, and nothing is loaded."""

from __future__ import annotations

import base64
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatrial.bundle import (
    Manifest,
    Signer,
    TrustRoot,
    list_bundles,
    load_bundle,
    open_trust_root,
    write_bundle,
)
from seatrial.bundle.manifest import MANIFEST, SIGNATURE, sha256
from seatrial.bundle.store import PREFIX, find_bundle
from seatrial.errors import BundleError, TamperedBundleError, UntrustedBundleError, UsageError
from seatrial.workspace import Workspace
from support.bundles import AS_OF, bundle_files, loaded_bundle, make_bundle, onnx_model

FLIPS = 1_000


def folder(workspace: Workspace, digest: str) -> Path:
    """Return the folder that a bundle's files lie in."""
    return workspace.folder / PREFIX / digest


def load(workspace: Workspace, digest: str) -> None:
    """Load a bundle by the workspace's own trust."""
    load_bundle(workspace, digest, open_trust_root(workspace))


def test_what_was_written_is_what_is_loaded(workspace: Workspace) -> None:
    """Every byte, by its path; the digest is the manifest's, and the signer is named."""
    files = bundle_files()

    bundle = loaded_bundle(workspace, files)

    assert bundle.files == files
    assert sha256((folder(workspace, bundle.digest) / MANIFEST).read_bytes()) == bundle.digest
    assert bundle.signed_by in open_trust_root(workspace).keys
    assert bundle.manifest.created == AS_OF.isoformat(timespec="seconds")


def test_the_same_bundle_twice_is_one(workspace: Workspace) -> None:
    """The digest is that of the content, so writing again changes nothing."""
    first, second = make_bundle(workspace), make_bundle(workspace)

    assert first == second
    assert list_bundles(workspace) == [first]


def test_every_flipped_bit_is_noticed(workspace: Workspace) -> None:
    """Of a thousand bits in random places, each one alone is refused, naming the file (threats: A1)."""
    digest = make_bundle(workspace)
    trust = open_trust_root(workspace)
    originals = {path: path.read_bytes() for path in folder(workspace, digest).iterdir()}
    paths = sorted(originals)
    random_ = random.Random(0)
    for _ in range(FLIPS):
        path = random_.choice(paths)
        content = bytearray(originals[path])
        place = random_.randrange(len(content))
        content[place] ^= 1 << random_.randrange(8)
        path.write_bytes(content)

        with pytest.raises((TamperedBundleError, UntrustedBundleError)) as caught:
            load_bundle(workspace, digest, trust)

        assert path.name in caught.value.message, f"{path.name} at {place}"
        if path.name != SIGNATURE:
            assert isinstance(caught.value, TamperedBundleError)
            assert caught.value.file == path.name
            assert sha256(bytes(content)) in caught.value.message
            assert sha256(originals[path]) in caught.value.message
        path.write_bytes(originals[path])
    load(workspace, digest)


def _missing(bundle: Path) -> str:
    (bundle / "card.md").unlink()
    return "card.md"


def _added(bundle: Path) -> str:
    (bundle / "more.md").write_text("")
    return "more.md"


def _added_below(bundle: Path) -> str:
    (bundle / "deep").mkdir()
    (bundle / "deep" / "model.onnx").write_bytes(b"")
    return "deep/model.onnx"


def _renamed(bundle: Path) -> str:
    (bundle / "card.md").rename(bundle / "card2.md")
    return "card2.md"


def _swapped(bundle: Path) -> str:
    card, contract = bundle / "card.md", bundle / "model.yaml"
    kept = card.read_bytes()
    card.write_bytes(contract.read_bytes())
    contract.write_bytes(kept)
    return "card.md"


def _case_twin(bundle: Path) -> str:
    shutil.copy(bundle / "card.md", bundle / "Card.md")
    return "Card.md"


def _emptied(bundle: Path) -> str:
    (bundle / "model.onnx").write_bytes(b"")
    return "model.onnx"


def _truncated(bundle: Path) -> str:
    path = bundle / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    return "model.onnx"


def _longer(bundle: Path) -> str:
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"\0")
    return "model.onnx"


def _from_another(bundle: Path) -> str:
    (bundle / "model.onnx").write_bytes(onnx_model() + b"")
    (bundle / "features.py").write_text("FEATURES = None\n")
    return "features.py"


def _relisted(bundle: Path) -> str:
    path = bundle / MANIFEST
    manifest = orjson.loads(path.read_bytes())
    manifest["files"] = manifest["files"][1:]
    path.write_bytes(orjson.dumps(manifest))
    return MANIFEST


def _listed_twice(bundle: Path) -> str:
    path = bundle / MANIFEST
    manifest = orjson.loads(path.read_bytes())
    manifest["files"].append(manifest["files"][0])
    path.write_bytes(orjson.dumps(manifest))
    return MANIFEST


TAMPERINGS = [
    _missing,
    _added,
    _added_below,
    _renamed,
    _swapped,
    _case_twin,
    _emptied,
    _truncated,
    _longer,
    _from_another,
    _relisted,
    _listed_twice,
]


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__.strip("_"))
def test_a_changed_set_of_files_is_refused(workspace: Workspace, tamper: Callable[[Path], str]) -> None:
    """A file more, less, or another is refused, and the message names it (threats: A2)."""
    digest = make_bundle(workspace)
    file = tamper(folder(workspace, digest))

    with pytest.raises(TamperedBundleError) as caught:
        load(workspace, digest)

    assert caught.value.file == file
    assert file in caught.value.message


def test_files_cannot_be_swapped_between_bundles(workspace: Workspace) -> None:
    """Two bundles of the same run differ in one file; putting one's into the other is noticed."""
    mine = make_bundle(workspace)
    other = make_bundle(workspace, bundle_files(card_md=b"# another\n"))
    for name in ("card.md", MANIFEST, SIGNATURE):
        original = (folder(workspace, mine) / name).read_bytes()
        shutil.copy(folder(workspace, other) / name, folder(workspace, mine) / name)
        with pytest.raises((TamperedBundleError, UntrustedBundleError), match=name):
            load(workspace, mine)
        (folder(workspace, mine) / name).write_bytes(original)
    load(workspace, mine)


def _envelope(bundle: Path) -> dict[str, object]:
    return orjson.loads((bundle / SIGNATURE).read_bytes())


def _no_signature(bundle: Path) -> None:
    (bundle / SIGNATURE).unlink()


def _no_signatures(bundle: Path) -> None:
    (bundle / SIGNATURE).write_bytes(orjson.dumps({**_envelope(bundle), "signatures": []}))


def _another_key(bundle: Path) -> None:
    signer = Signer(Ed25519PrivateKey.generate())
    (bundle / SIGNATURE).write_bytes(signer.sign((bundle / MANIFEST).read_bytes()))


def _another_key_s_name(bundle: Path) -> None:
    """Sign with a stranger's key and say that it was the trusted one."""
    trusted = _envelope(bundle)["signatures"][0]["keyid"]  # type: ignore[index]
    _another_key(bundle)
    envelope = _envelope(bundle)
    envelope["signatures"][0]["keyid"] = trusted  # type: ignore[index]
    (bundle / SIGNATURE).write_bytes(orjson.dumps(envelope))


def _another_payload_type(bundle: Path) -> None:
    (bundle / SIGNATURE).write_bytes(orjson.dumps({**_envelope(bundle), "payloadType": "text/plain"}))


def _truncated_envelope(bundle: Path) -> None:
    (bundle / SIGNATURE).write_bytes((bundle / SIGNATURE).read_bytes()[:-5])


def _truncated_signature(bundle: Path) -> None:
    envelope = _envelope(bundle)
    envelope["signatures"][0]["sig"] = envelope["signatures"][0]["sig"][:40]  # type: ignore[index]
    (bundle / SIGNATURE).write_bytes(orjson.dumps(envelope))


def _another_spelling(bundle: Path) -> None:
    """Change a bit of the base64 text that means nothing: the bytes are the same, the text is not."""
    envelope = _envelope(bundle)
    text = envelope["signatures"][0]["sig"]  # type: ignore[index]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = text[:-3] + letters[letters.index(text[-3]) ^ 1] + "=="
    assert base64.b64decode(other) == base64.b64decode(text)
    envelope["signatures"][0]["sig"] = other  # type: ignore[index]
    (bundle / SIGNATURE).write_bytes(orjson.dumps(envelope))


def _not_base64(bundle: Path) -> None:
    envelope = _envelope(bundle)
    envelope["signatures"][0]["sig"] = "*" * 88  # type: ignore[index]
    (bundle / SIGNATURE).write_bytes(orjson.dumps(envelope))


def _another_manifest(bundle: Path) -> None:
    envelope = _envelope(bundle)
    envelope["payload"] = base64.b64encode(b"{}").decode()
    (bundle / SIGNATURE).write_bytes(orjson.dumps(envelope))


def _another_algorithm(bundle: Path) -> None:
    envelope = _envelope(bundle)
    envelope["signatures"][0]["alg"] = "none"  # type: ignore[index]
    (bundle / SIGNATURE).write_bytes(orjson.dumps(envelope))


def _empty_envelope(bundle: Path) -> None:
    (bundle / SIGNATURE).write_bytes(b"")


SIGNATURES = [
    _no_signature,
    _no_signatures,
    _another_key,
    _another_key_s_name,
    _another_payload_type,
    _truncated_envelope,
    _truncated_signature,
    _another_spelling,
    _not_base64,
    _another_manifest,
    _another_algorithm,
    _empty_envelope,
]


@pytest.mark.parametrize("forge", SIGNATURES, ids=lambda forge: forge.__name__.strip("_"))
def test_without_a_good_signature_nothing_is_loaded(
    workspace: Workspace, forge: Callable[[Path], None]
) -> None:
    """Missing, by a stranger, of another document, of another kind, or cut off (threats: A3)."""
    digest = make_bundle(workspace)
    forge(folder(workspace, digest))

    with pytest.raises(UntrustedBundleError):
        load(workspace, digest)


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, "model.onnx"])
def test_a_file_that_has_grown_is_not_even_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file of a gigabyte in the place of a small one does not fill the memory of whoever loads it."""
    digest = make_bundle(workspace)
    with (folder(workspace, digest) / name).open("r+b") as file:
        file.truncate(2**30)
    read = Workspace.get

    def get(self: Workspace, key: str) -> bytes | None:
        assert not key.endswith(f"/{name}")
        return read(self, key)

    monkeypatch.setattr(Workspace, "get", get)

    with pytest.raises(TamperedBundleError, match=name) as caught:
        load(workspace, digest)
    assert f"{2**30:,}" in caught.value.message


def test_one_good_signature_among_others_is_enough(workspace: Workspace) -> None:
    """A second signer may sign too, whether or not its key is trusted here."""
    digest = make_bundle(workspace)
    path = folder(workspace, digest)
    envelope = _envelope(path)
    other = orjson.loads(Signer(Ed25519PrivateKey.generate()).sign((path / MANIFEST).read_bytes()))
    envelope["signatures"] = other["signatures"] + envelope["signatures"]
    (path / SIGNATURE).write_bytes(orjson.dumps(envelope))

    load(workspace, digest)


def test_the_key_of_another_environment_is_not_trusted(tmp_path: Path) -> None:
    """A bundle that was signed for test does not load in production, until its key is put there."""
    test, production = Workspace.open(tmp_path / "test"), Workspace.open(tmp_path / "production")
    make_bundle(production)
    digest = make_bundle(test)
    shutil.copytree(folder(test, digest), folder(production, digest), dirs_exist_ok=True)
    (production.folder / PREFIX / digest / SIGNATURE).write_bytes(
        (folder(test, digest) / SIGNATURE).read_bytes()
    )

    with pytest.raises(UntrustedBundleError, match="no good signature by a key that is trusted in") as caught:
        load(production, digest)
    assert "put the maker's public key there" in caught.value.remedy

    shutil.copytree(
        test.folder / "keys" / "trusted", production.folder / "keys" / "trusted", dirs_exist_ok=True
    )
    load(production, digest)


def test_a_key_is_trusted_by_its_bytes_not_its_file_s_name(workspace: Workspace) -> None:
    """A stranger's key under the trusted one's name changes who is trusted, and the old one is not."""
    digest = make_bundle(workspace)
    (path,) = (workspace.folder / "keys" / "trusted").iterdir()
    stranger = Ed25519PrivateKey.generate().public_key()
    path.write_bytes(
        stranger.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )

    with pytest.raises(UntrustedBundleError):
        load(workspace, digest)


def test_nobody_is_trusted_where_there_are_no_keys(workspace: Workspace) -> None:
    """An empty trust root trusts no one."""
    digest = make_bundle(workspace)

    with pytest.raises(UntrustedBundleError):
        load_bundle(workspace, digest, TrustRoot({}, "nowhere"))


@pytest.mark.parametrize("digest", ["", "abc", "0" * 63, "G" * 64, "../" + "0" * 61, "0" * 64 + "\n"])
def test_what_is_no_digest_is_refused(workspace: Workspace, digest: str) -> None:
    """A digest is 64 hexadecimal digits and never a path."""
    with pytest.raises(BundleError, match="must be 64 hexadecimal digits"):
        load(workspace, digest)


def test_a_bundle_that_is_not_there(workspace: Workspace) -> None:
    """The message says how to list those that there are."""
    with pytest.raises(BundleError, match="There is no bundle 000000000000 in") as caught:
        load(workspace, "0" * 64)
    assert "seatrial models" in caught.value.remedy


def test_an_unfinished_bundle_is_no_bundle(workspace: Workspace) -> None:
    """The manifest is written last: what a killed writer left behind is not listed and does not load."""
    digest = make_bundle(workspace)
    (folder(workspace, digest) / MANIFEST).unlink()

    assert list_bundles(workspace) == []
    with pytest.raises(BundleError, match="There is no bundle"):
        load(workspace, digest)

    assert make_bundle(workspace) == digest
    load(workspace, digest)


def test_a_bundle_is_found_by_the_beginning_of_its_digest(workspace: Workspace) -> None:
    """Six digits are enough if they are one bundle's."""
    digest = make_bundle(workspace)

    assert find_bundle(workspace, digest[:6]) == find_bundle(workspace, digest) == digest
    with pytest.raises(BundleError, match="No bundle"):
        find_bundle(workspace, ("0" if digest[0] != "0" else "1") * 6)
    for prefix in ("", digest[:5], "zzzzzz", digest + "0"):
        with pytest.raises(UsageError, match="at least 6 digits"):
            find_bundle(workspace, prefix)


def _manifest(**changes: object) -> bytes:
    good = {
        "format": "seatrial-bundle/1",
        "model": "visits",
        "created": "2024-01-01T00:00:00+00:00",
        "run": "run",
        "data": {},
        "files": [{"path": "card.md", "size": 0, "sha256": "0" * 64}],
    }
    return orjson.dumps({**good, **changes})


BAD_MANIFESTS = {
    "another format": {"format": "seatrial-bundle/2"},
    "a path that climbs": {"files": [{"path": "../card.md", "size": 0, "sha256": "0" * 64}]},
    "an absolute path": {"files": [{"path": "/etc/passwd", "size": 0, "sha256": "0" * 64}]},
    "a path with letters of two cases": {"files": [{"path": "Card.md", "size": 0, "sha256": "0" * 64}]},
    "a path that is no ASCII": {"files": [{"path": "cárd.md", "size": 0, "sha256": "0" * 64}]},
    "a digest that is none": {"files": [{"path": "card.md", "size": 0, "sha256": "0" * 63}]},
    "a size below zero": {"files": [{"path": "card.md", "size": -1, "sha256": "0" * 64}]},
    "too large a file": {"files": [{"path": "card.md", "size": 2**40, "sha256": "0" * 64}]},
    "an unknown key": {"more": 1},
    "a file twice": {"files": [{"path": "card.md", "size": 0, "sha256": "0" * 64}] * 2},
    "too many files": {"files": [{"path": f"f{n}", "size": 0, "sha256": "0" * 64} for n in range(101)]},
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_manifest_s_form_is_checked(case: str) -> None:
    """Even a signed manifest may only list plain files of a known form."""
    assert Manifest.from_bytes(_manifest()).model == "visits"

    with pytest.raises(
        TamperedBundleError, match="manifest.json is not a manifest of format seatrial-bundle/1"
    ):
        Manifest.from_bytes(_manifest(**BAD_MANIFESTS[case]))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_manifest_at_all(content: bytes) -> None:
    """Half a document or another kind of it is refused like a wrong one."""
    with pytest.raises(TamperedBundleError):
        Manifest.from_bytes(content)


def test_what_the_files_say(workspace: Workspace) -> None:
    """Contract, features and verdicts are read from the checked bytes, and the model answers."""
    bundle = loaded_bundle(workspace)

    assert bundle.contract.contract.name == "visits"
    assert "back_share_7d" in bundle.features.all_names
    assert [verdict.check for verdict in bundle.verdicts] == [
        "data_tests",
        "minimum_quality",
        "calibration",
        "parity",
    ]
    answers = bundle.session().run(None, {"features": np.ones((2, 3), dtype=np.float32)})
    assert answers[0].tolist() == [[3.0, 3.0], [3.0, 3.0]]


@pytest.mark.parametrize(
    ("files", "what", "message"),
    [
        ({"verdicts_json": b"{"}, "verdicts", "verdicts.json of bundle .* is wrong"),
        ({"verdicts_json": b'[{"check": "x"}]'}, "verdicts", "is wrong at 0.outcome: Field required"),
        ({"schema_json": b"{}"}, "schema", "schema.json of bundle .* is wrong"),
        ({}, "schema", "has no schema.json. It has: "),
        ({"model_onnx": b"no model"}, "session", "model.onnx of bundle .* cannot be loaded"),
        ({"model_onnx": b""}, "session", "model.onnx of bundle .* cannot be loaded"),
    ],
)
def test_signed_nonsense_is_an_error_with_its_name(
    workspace: Workspace, files: dict[str, bytes], what: str, message: str
) -> None:
    """A file that is as it was signed and still no good is named."""
    bundle = loaded_bundle(workspace, bundle_files(**files))

    with pytest.raises(BundleError, match=message):
        bundle.session() if what == "session" else getattr(bundle, what)


def test_a_bundle_with_a_bad_file_name_is_not_written(workspace: Workspace) -> None:
    """What could not be listed is refused before anything is written."""
    with pytest.raises(BundleError, match="Card.md"):
        write_bundle(
            workspace,
            {"Card.md": b""},
            model="visits",
            run="run",
            data={},
            signer=Signer(Ed25519PrivateKey.generate()),
        )
    assert workspace.list("bundles") == []
