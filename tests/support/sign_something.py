"""A process that signs, making the workspace's key if there is none yet: ``ROOT``."""

import sys

from seatrial.bundle import open_signer, open_trust_root
from seatrial.bundle.signing import key_id
from seatrial.workspace import Workspace


def main() -> None:
    """Sign when told to, check the signature, and print the key's name."""
    workspace = Workspace.open(sys.argv[1])
    sys.stdin.readline()
    signer = open_signer(workspace)
    assert open_trust_root(workspace).check(b"x", signer.sign(b"x")) == key_id(signer.private.public_key())
    print(key_id(signer.private.public_key()))


if __name__ == "__main__":
    main()
