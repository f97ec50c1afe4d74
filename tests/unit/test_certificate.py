from __future__ import annotations

import ssl
from pathlib import Path

from seatrial.cluster_setup.certificate import write_certificate


def test_a_tls_server_takes_the_certificate(tmp_path: Path) -> None:
    """Certificate and key fit together, and the key is its owner's alone."""
    write_certificate(tmp_path)

    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600
