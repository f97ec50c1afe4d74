"""Write bundles, and load them from bytes that were just checked.

A bundle's files are written create-only under its digest, the manifest last, so a writer killed
at any moment leaves nothing that loads (threats: P2). Loading reads each file once into memory,
checks the digest of those very bytes, and hands out nothing else: there is no moment between the
check and the use in which a file could change (threats: A1 to A3, Z7).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from seatrial.bundle import content as names
from seatrial.bundle.content import BundleSchema
from seatrial.bundle.manifest import MANIFEST, SIGNATURE, Manifest, ManifestFile, is_digest, sha256
from seatrial.bundle.signing import Signer, TrustRoot
from seatrial.contract.load import LoadedContract, parse_contract
from seatrial.errors import BundleError, ContractError, Problem, TamperedBundleError, UsageError
from seatrial.features.definitions import Features
from seatrial.model_code import run_model_code
from seatrial.onnx_session import open_session
from seatrial.verdicts import Verdict
from seatrial.workspace import Workspace

if TYPE_CHECKING:
    import onnxruntime

PREFIX = "bundles/sha256"
SHORTEST_PREFIX = 6
MAXIMUM_MANIFEST_BYTES = 1_000_000

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose signature and digests were checked, with all its bytes.

    Attributes:
        digest: SHA-256 of the manifest: the version's identity.
        manifest: Its manifest.
        files: The checked bytes of each file, by path.
        signed_by: Name of the trusted key that signed it.
    """

    digest: str
    manifest: Manifest
    files: dict[str, bytes]
    signed_by: str

    def file(self, path: str) -> bytes:
        """Return the checked bytes of one of the bundle's files.

        Raises:
            BundleError: if the bundle has no such file.
        """
        if path not in self.files:
            raise BundleError(
                f"The bundle {self.digest[:12]} has no {path}. It has: {', '.join(self.files)}."
            )
        return self.files[path]

    def json(self, path: str) -> Any:
        """Return the content of one of the bundle's JSON files.

        Raises:
            BundleError: if the bundle has no such file or it is no JSON.
        """
        try:
            return orjson.loads(self.file(path))
        except orjson.JSONDecodeError as error:
            raise BundleError(f"{path} of bundle {self.digest[:12]} is no JSON: {error}.") from None

    def _read(self, path: str, kind: TypeAdapter[T]) -> T:
        try:
            return kind.validate_json(self.file(path))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BundleError(
                f"{path} of bundle {self.digest[:12]} is wrong at {place or 'its beginning'}: {first['msg']}."
            ) from None

    @cached_property
    def contract(self) -> LoadedContract:
        """The contract that the model was trained by.

        Raises:
            ContractError: if it is not one that this version of Seatrial understands.
        """
        text = self.file(names.CONTRACT).decode(errors="replace")
        # The folder is only for messages; nothing is read from it.
        return parse_contract(text, Path(self.manifest.model) / names.CONTRACT)

    @cached_property
    def schema(self) -> BundleSchema:
        """What goes into the model and what comes out.

        Raises:
            BundleError: if the file is not such a schema.
        """
        return self._read(names.SCHEMA, TypeAdapter(BundleSchema))

    @cached_property
    def features(self) -> Features:
        """The feature definitions, executed from the checked bytes.

        Raises:
            ContractError: if the file cannot be executed or defines none.
        """
        path = f"{self.digest[:12]}/{names.FEATURES}"
        features = getattr(run_model_code(self.file(names.FEATURES), path), "FEATURES", None)
        if not isinstance(features, Features):
            raise ContractError(path, [Problem("", "must define FEATURES, and does not.")])
        return features

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """What every gate said.

        Raises:
            BundleError: if one of them is no verdict, such as a pass without a measured value.
        """
        return self._read(names.VERDICTS, TypeAdapter(list[Verdict]))

    def session(self, threads: int = 1) -> onnxruntime.InferenceSession:
        """Return an onnxruntime session of the model, made from the checked bytes.

        Args:
            threads: Threads that one prediction may use.

        Raises:
            BundleError: if the bytes are no model that onnxruntime accepts.
        """
        content = self.file(names.ONNX)
        try:
            return open_session(content, threads)
        except Exception as error:  # noqa: BLE001 -- onnxruntime raises classes of its own by the dozen
            raise BundleError(
                f"{names.ONNX} of bundle {self.digest[:12]} cannot be loaded: {error}."
            ) from None


def write_bundle(
    workspace: Workspace,
    files: dict[str, bytes],
    *,
    model: str,
    run: str,
    data: dict[str, dict[str, str | int]],
    signer: Signer,
    created: datetime | None = None,
) -> str:
    """Write a signed bundle.

    Args:
        workspace: Where it goes.
        files: Its files' bytes, by path.
        model: The model's name.
        run: The run that made it.
        data: The versions of the tables it learned from, by table.
        signer: The key that signs it.
        created: When it was made; now without it.

    Returns:
        Its digest.

    Raises:
        BundleError: if a file's name or size, or their number, is not what a bundle may have.
        StoreError: if the store fails; what was written by then is not a bundle.
    """
    moment = (created or datetime.now(UTC)).isoformat(timespec="seconds")
    try:
        listed = tuple(
            ManifestFile(path=path, size=len(content), sha256=sha256(content))
            for path, content in sorted(files.items())
        )
        manifest = Manifest(model=model, created=moment, run=run, data=data, files=listed).to_bytes()
    except ValidationError as error:
        raise BundleError(f"These files cannot be a bundle: {error}.") from None
    digest = sha256(manifest)
    for path, content in files.items():
        workspace.create(f"{PREFIX}/{digest}/{path}", content)
    workspace.create(f"{PREFIX}/{digest}/{SIGNATURE}", signer.sign(manifest))
    workspace.create(f"{PREFIX}/{digest}/{MANIFEST}", manifest)
    return digest


def copy_bundle(source: Workspace, target: Workspace, digest: str, trust: TrustRoot) -> Bundle:
    """Copy a bundle into another workspace, byte by byte as it is, and read it back.

    Args:
        source: Where it lies.
        target: Where it goes; a copy that is there already stays.
        digest: Its digest.
        trust: The keys that are trusted in the target.

    Returns:
        The bundle as the target has it.

    Raises:
        BundleError: if there is no such bundle.
        TamperedBundleError: if a file is missing, added or changed, here or there.
        UntrustedBundleError: if no key that is trusted in the target has signed it.
        StoreError: if a store fails; what was written by then is not a bundle.
    """
    bundle = load_bundle(source, digest, trust)
    base = f"{PREFIX}/{digest}"
    for path, content in bundle.files.items():
        target.create(f"{base}/{path}", content)
    for path in (SIGNATURE, MANIFEST):  # The manifest last: with it, it is a bundle.
        target.create(f"{base}/{path}", source.get(f"{base}/{path}") or b"")
    return load_bundle(target, digest, trust)


def list_bundles(workspace: Workspace) -> list[str]:
    """Return the digests of all bundles in the workspace, sorted; unfinished ones are left out."""
    keys = workspace.list(PREFIX)
    return [key.split("/")[2] for key in keys if key.endswith(f"/{MANIFEST}")]


def find_bundle(workspace: Workspace, prefix: str) -> str:
    """Return the digest of the one bundle that ``prefix`` (at least 6 digits) begins.

    Raises:
        BundleError: if no bundle, or more than one, begins so.
        UsageError: if it is no prefix of a digest.
    """
    if not is_digest(prefix.ljust(64, "0")) or len(prefix) < SHORTEST_PREFIX:
        raise UsageError(
            f"A bundle is named by at least {SHORTEST_PREFIX} digits of its digest. Got {prefix!r} instead."
        )
    found = [digest for digest in list_bundles(workspace) if digest.startswith(prefix)]
    if len(found) != 1:
        what = "No bundle" if not found else f"{len(found)} bundles"
        raise BundleError(
            f"{what} in {workspace.root} begin with {prefix}.", remedy="List them: seatrial models"
        )
    return found[0]


def load_bundle(workspace: Workspace, digest: str, trust: TrustRoot) -> Bundle:
    """Load a bundle, checking everything before anything of it is used.

    Args:
        workspace: Where it lies.
        digest: Its digest.
        trust: The keys that are trusted.

    Raises:
        BundleError: if there is no such bundle.
        TamperedBundleError: if a file is missing, added or changed; the message names it.
        UntrustedBundleError: if no trusted key has signed it.
    """
    if not is_digest(digest):
        raise BundleError(f"A bundle's digest must be 64 hexadecimal digits. Got {digest!r} instead.")
    base = f"{PREFIX}/{digest}"
    content = _small(workspace, base, digest, MANIFEST)
    if content is None:
        raise BundleError(
            f"There is no bundle {digest[:12]} in {workspace.root}.", remedy="List them: seatrial models"
        )
    if (got := sha256(content)) != digest:
        raise TamperedBundleError(
            f"{MANIFEST} of bundle {digest[:12]} was changed: its SHA-256 must be {digest}. "
            f"Got {got} instead.",
            file=MANIFEST,
        )
    signed_by = trust.check(content, _small(workspace, base, digest, SIGNATURE))
    manifest = Manifest.from_bytes(content)
    _refuse_extra_files(workspace, base, digest, manifest)
    files = {file.path: _checked_file(workspace, base, digest, file) for file in manifest.files}
    return Bundle(digest, manifest, files, signed_by)


def _small(workspace: Workspace, base: str, digest: str, path: str) -> bytes | None:
    """Read a file that no manifest names: one that is absurdly large is not even read."""
    size = workspace.size(f"{base}/{path}") or 0
    if size > MAXIMUM_MANIFEST_BYTES:
        raise TamperedBundleError(
            f"{path} of bundle {digest[:12]} must have at most {MAXIMUM_MANIFEST_BYTES:,} bytes. Got {size:,}.",
            file=path,
        )
    return workspace.get(f"{base}/{path}")


def _refuse_extra_files(workspace: Workspace, base: str, digest: str, manifest: Manifest) -> None:
    listed = {f"{base}/{file.path}" for file in manifest.files} | {
        f"{base}/{MANIFEST}",
        f"{base}/{SIGNATURE}",
    }
    for key in workspace.list(base):
        if key not in listed:
            path = key.removeprefix(f"{base}/")
            raise TamperedBundleError(
                f"{path} was added to bundle {digest[:12]}: its manifest does not list it.", file=path
            )


def _checked_file(workspace: Workspace, base: str, digest: str, file: ManifestFile) -> bytes:
    size = workspace.size(f"{base}/{file.path}")
    # Before it is read: whoever can write to the store could make any file too large for our memory.
    if size is not None and size != file.size:
        raise TamperedBundleError(
            f"{file.path} of bundle {digest[:12]} was changed: it must have {file.size:,} bytes. Got {size:,}.",
            file=file.path,
        )
    content = workspace.get(f"{base}/{file.path}")
    if content is None:
        raise TamperedBundleError(f"{file.path} is missing from bundle {digest[:12]}.", file=file.path)
    if (got := sha256(content)) != file.sha256:
        raise TamperedBundleError(
            f"{file.path} of bundle {digest[:12]} was changed: its SHA-256 must be {file.sha256}. "
            f"Got {got} instead.",
            file=file.path,
        )
    return content
