"""Make a self-signed certificate for a server that asks for one and that nobody calls.

Seldon's operator starts the HTTPS server of its webhook in any case and ends where there is no
certificate. Our chart has no webhook, so the certificate proves nothing to anybody: it is made at
each start of the pod, in memory, and neither a Secret holds it nor can it run out (threats: P11).
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

VALID = timedelta(days=3650)
NAME = "nobody-calls-this.invalid"


def write_certificate(folder: Path) -> None:
    """Write ``tls.crt`` and ``tls.key`` into a folder, for ten years from now.

    Args:
        folder: An existing folder.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.key").touch(mode=0o600)
    (folder / "tls.key").write_bytes(private)


if __name__ == "__main__":
    write_certificate(Path(sys.argv[1]))
