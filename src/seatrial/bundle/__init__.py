"""Bundles: one immutable set of files a model version, signed, and named by its manifest's digest.

:mod:`seatrial.bundle.manifest` is the list of files and their digests, :mod:`seatrial.bundle.signing`
the keys and the envelope, :mod:`seatrial.bundle.store` writing and checked loading, and
:mod:`seatrial.bundle.content` what the files say. The format is written down in
``docs/reference/bundle.md``.
"""

from seatrial.bundle.content import BundleSchema, InputColumn
from seatrial.bundle.manifest import Manifest, ManifestFile
from seatrial.bundle.signing import Signer, TrustRoot, open_signer, open_trust_root
from seatrial.bundle.store import Bundle, copy_bundle, list_bundles, load_bundle, write_bundle
from seatrial.unpickling import forbid_unpickling

__all__ = [
    "Bundle",
    "BundleSchema",
    "InputColumn",
    "Manifest",
    "ManifestFile",
    "Signer",
    "TrustRoot",
    "copy_bundle",
    "forbid_unpickling",
    "list_bundles",
    "load_bundle",
    "open_signer",
    "open_trust_root",
    "write_bundle",
]
