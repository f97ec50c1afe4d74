from __future__ import annotations

import base64
import hashlib
import http.client
import io
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import pytest

from seatrial.cluster_setup.object_store import Credentials, open_client
from seatrial.cluster_setup.wait import wait_for
from support.minio_server import REGION, ObjectStore
from support.ports import free_port

UNSIGNED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@dataclass(frozen=True)
class Write:
    """A write by somebody who knows the name of an access key and not its secret.

    Attributes:
        target: Path and query.
        headers: The headers.
        body: The body.
        makes: The object that is there if it succeeds.
    """

    target: str
    headers: dict[str, str]
    body: bytes
    makes: str


def by_archive(access_key: str) -> Write:
    """A bulk upload, whose handler looks at no signature of such requests (CVE-2026-40344)."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("evil")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    headers = {
        "X-Amz-Meta-Snowball-Auto-Extract": "true",
        "X-Amz-Meta-Minio-Snowball-Prefix": "test/archive",
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope(access_key)}, "
        f"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={'0' * 64}",
    }
    return Write("/seatrial/test/archive.tar", headers, archive.getvalue(), "test/archive/evil")


def by_query(access_key: str) -> Write:
    """A plain upload whose key is named in the query, where no signature is asked for (CVE-2026-41145)."""
    checksum = base64.b64encode(zlib.crc32(b"evil").to_bytes(4, "big"))
    body = b"4\r\nevil\r\n0\r\nx-amz-checksum-crc32:%b\r\n\r\n" % checksum
    headers = {
        "X-Amz-Decoded-Content-Length": "4",
        "X-Amz-Trailer": "x-amz-checksum-crc32",
        "Content-Encoding": "aws-chunked",
    }
    target = f"/seatrial/test/by-query?X-Amz-Credential={quote(scope(access_key), safe='')}"
    return Write(target, headers, body, "test/by-query")


WRITES: dict[str, Callable[[str], Write]] = {"archive": by_archive, "query": by_query}


def scope(access_key: str) -> str:
    """A key's name with the scope that a signature would have today."""
    return f"{access_key}/{time.strftime('%Y%m%d', time.gmtime())}/{REGION}/s3/aws4_request"


def forge(url: str, write: Write, claim: str) -> tuple[int, bytes]:
    """Send the write with that claim about its payload."""
    headers = {
        "Host": "store",
        "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "X-Amz-Content-Sha256": claim,
        "Content-Length": str(len(write.body)),
        **write.headers,
    }
    return send(url, "PUT", write.target, headers, write.body)


def send(url: str, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """Send one request as it is, and return status and body of the answer."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def exists(store: ObjectStore, name: str) -> bool:
    """Whether the object is in the store."""
    found = open_client(store.url, store.root, REGION).list_objects("seatrial", prefix=name)
    return any(entry.object_name == name for entry in found)


@pytest.mark.parametrize("way", WRITES)
def test_forged_write_is_refused(store: ObjectStore, users: dict[str, Credentials], way: str) -> None:
    """A write with a known key name and no secret, whose payload claims to be unsigned, is refused (O11)."""
    write = WRITES[way](users["environment-test"].access_key)

    for claim in (UNSIGNED, UNSIGNED.lower(), f" {UNSIGNED}"):
        status, answer = forge(store.url, write, claim)

        assert status == 403
        assert b"unsigned payload and a trailer are refused here" in answer
    assert not exists(store, write.makes)
    assert "refused PUT /seatrial/test/" in store.log.read_text()


@pytest.mark.parametrize("way", WRITES)
def test_forged_write_passes_without_the_filter(
    store: ObjectStore, users: dict[str, Credentials], way: str
) -> None:
    """The very same request writes where no filter stands: the hole is there, and the test above bites."""
    write = WRITES[way](users["environment-test"].access_key)

    status, answer = forge(store.unfiltered, write, UNSIGNED)

    assert (status, answer) == (200, b"")
    assert exists(store, write.makes)
    open_client(store.url, store.root, REGION).remove_object("seatrial", write.makes)


@pytest.mark.parametrize("size", [0, 1, 4096, 30_000_000])
def test_bytes_pass_unchanged(store: ObjectStore, users: dict[str, Credentials], size: int) -> None:
    """What is written through the filter is read back through it, byte by byte, of any size."""
    client = open_client(store.url, users["environment-production"], REGION)
    content = hashlib.shake_256(b"%d" % size).digest(size)

    client.put_object("seatrial", f"production/{size}", io.BytesIO(content), size)

    assert client.stat_object("seatrial", f"production/{size}").size == size
    assert client.get_object("seatrial", f"production/{size}").read() == content


@pytest.mark.parametrize("name", ["a b", "a+b", "a%2Fb", "ä/ö", "a=b&c", "a?b#c", "a;b:@,$!*'()", "..a"])
def test_names_pass_unchanged(store: ObjectStore, users: dict[str, Credentials], name: str) -> None:
    """Objects with unusual names keep them: a target that was escaped anew would have another signature."""
    client = open_client(store.url, users["environment-production"], REGION)

    client.put_object("seatrial", f"production/{name}", io.BytesIO(b"x"), 1)

    listed = client.list_objects("seatrial", prefix="production/", recursive=True)
    assert f"production/{name}" in {entry.object_name for entry in listed}
    assert client.get_object("seatrial", f"production/{name}").read() == b"x"


def test_compressed_objects_stay_compressed(store: ObjectStore, users: dict[str, Credentials]) -> None:
    """An object that says it is compressed passes as the bytes it is, in both directions."""
    client = open_client(store.url, users["environment-production"], REGION)
    content = zlib.compress(b"x" * 10_000)

    client.put_object(
        "seatrial",
        "production/compressed",
        io.BytesIO(content),
        len(content),
        metadata={"Content-Encoding": "deflate"},
    )

    answer = client.get_object("seatrial", "production/compressed")
    assert answer.read(decode_content=False) == content
    assert answer.headers["Content-Encoding"] == "deflate"


def test_ranges_and_conditions_pass(store: ObjectStore, users: dict[str, Credentials]) -> None:
    """A part of an object is read, and what has not changed is answered with 304 and no body."""
    client = open_client(store.url, users["environment-production"], REGION)
    etag = client.put_object("seatrial", "production/ranged", io.BytesIO(b"0123456789"), 10).etag
    address = urlsplit(client.presigned_get_object("seatrial", "production/ranged"))
    target = f"{address.path}?{address.query}"

    ranged = send(store.url, "GET", target, {"Host": address.netloc, "Range": "bytes=2-4"}, b"")
    unchanged = send(store.url, "GET", target, {"Host": address.netloc, "If-None-Match": f'"{etag}"'}, b"")

    assert ranged == (206, b"234")
    assert unchanged == (304, b"")


def test_many_at_once(store: ObjectStore, users: dict[str, Credentials]) -> None:
    """Eight clients that write and read at once each get their own bytes."""
    wrong: list[int] = []

    def work(number: int) -> None:
        client = open_client(store.url, users["environment-production"], REGION)
        for turn in range(5):
            content = b"%d-%d" % (number, turn) * 5_000
            client.put_object("seatrial", f"production/many/{number}", io.BytesIO(content), len(content))
            if client.get_object("seatrial", f"production/many/{number}").read() != content:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_store_that_is_away_is_a_503() -> None:
    """While MinIO is away, clients get S3's own answer for that, which they try again after."""
    port, nowhere = free_port(), free_port()
    command = [sys.executable, "-m", "seatrial.cluster_setup.unsigned_trailer_filter"]
    command += [f"--listen=127.0.0.1:{port}", f"--upstream=http://127.0.0.1:{nowhere}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for([f"tcp://127.0.0.1:{port}"], limit_seconds=30)
        answer = send(f"http://127.0.0.1:{port}", "GET", "/seatrial/x", {"Host": "store"}, b"")
    finally:
        process.terminate()
        code = process.wait(timeout=30)

    assert answer[0] == 503
    assert b"<Code>ServiceUnavailable</Code>" in answer[1]
    assert code == 0
