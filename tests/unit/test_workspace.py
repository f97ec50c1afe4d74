"""The workspace: create-only writes, keys that stay inside, and errors that say what to do."""

from __future__ import annotations

import errno
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.errors import StoreError, UsageError
from seatrial.workspace import Workspace, store_errors


def test_an_object_is_created_once(workspace: Workspace) -> None:
    """The second of two creates is told so, and the first one's bytes stay."""
    assert workspace.create("a/b.json", b"first")
    assert not workspace.create("a/b.json", b"second")
    assert workspace.get("a/b.json") == b"first"


def test_put_takes_the_place_of_what_was_there(workspace: Workspace) -> None:
    """``put`` is for what may change."""
    workspace.put("a", b"first")
    workspace.put("a", b"second")

    assert workspace.get("a") == b"second"


def test_what_is_not_there_is_none(workspace: Workspace) -> None:
    """A missing object is an answer, not an error."""
    assert workspace.get("nothing/here") is None
    assert workspace.size("nothing/here") is None
    assert workspace.list("nothing") == []


def test_listing_is_sorted_and_by_whole_names(workspace: Workspace) -> None:
    """``runs`` lists what is below it, and not what is below ``runs2``."""
    for key in ("runs/b", "runs/a/c", "runs2/d"):
        workspace.put(key, b"")

    assert workspace.list("runs") == ["runs/a/c", "runs/b"]


def test_leftovers_of_a_killed_writer_are_not_listed(workspace: Workspace) -> None:
    """The store writes beside, under a name with ``#``, and moves what is whole into its place."""
    workspace.put("runs/a.json", b"{}")
    (workspace.folder / "runs" / "b.json#1").write_bytes(b"{")

    assert workspace.list("runs") == ["runs/a.json"]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        ".",
        "a/./b",
        "a b",
        "a\n",
        "ä",
        "a\\b",
        "a\0",
        "a#1",
        "~",
        "a" * 513,
    ],
)
def test_a_key_cannot_leave_the_workspace(workspace: Workspace, key: str) -> None:
    """Keys are plain names between slashes; whatever else is refused before the store sees it."""
    for use in (
        workspace.get,
        lambda k: workspace.create(k, b""),
        lambda k: workspace.put(k, b""),
        workspace.list,
    ):
        with pytest.raises(StoreError, match="An object's key may have"):
            use(key)


@given(st.text())
def test_no_key_is_written_outside(key: str) -> None:
    """Any text is a harmless key or refused."""
    from seatrial.workspace import _checked

    try:
        checked = _checked(key)
    except StoreError:
        return
    assert (Path("/root") / checked).resolve().is_relative_to("/root")


def test_the_address_comes_from_argument_setting_or_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument wins over the variable, and both over the folder here."""
    monkeypatch.chdir(tmp_path)
    assert Workspace.open().folder == tmp_path / ".seatrial"

    monkeypatch.setenv("SEATRIAL_WORKSPACE", str(tmp_path / "set"))
    assert Workspace.open().folder == tmp_path / "set"
    assert Workspace.open(tmp_path / "given").folder == tmp_path / "given"


@pytest.mark.parametrize(
    "address", ["gs://bucket", "file:///tmp/x", "http://host/x", "s3://", "s3://bucket/../x", "s3://b/x y"]
)
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    """Folders and s3:// addresses are supported, and the message says so."""
    with pytest.raises(UsageError, match="must be a folder or an s3://bucket/prefix address"):
        Workspace.open(address)


def test_an_s3_workspace_has_no_folder() -> None:
    """What needs a folder says so for a bucket; addresses are joined with one slash."""
    workspace = Workspace("s3://bucket/prefix")

    assert workspace.uri("a/b") == "s3://bucket/prefix/a/b"
    with pytest.raises(UsageError, match="needs a workspace that is a folder"):
        _ = workspace.folder


def test_a_file_in_the_way_is_a_store_s_error(tmp_path: Path) -> None:
    """A workspace cannot be made where a file is, and the message names the place."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="making the workspace .*file"):
        Workspace.open(tmp_path / "file")


def test_a_full_disk_is_told_as_such() -> None:
    """What to do about a full disk differs from what to do about a missing one."""
    with pytest.raises(StoreError) as caught, store_errors("writing a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "The disk is full: free some space" in caught.value.remedy

    with pytest.raises(StoreError) as caught, store_errors("writing a"):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert "you may write to it" in caught.value.remedy


def test_a_folder_in_the_place_of_an_object_is_an_error(workspace: Workspace) -> None:
    """The store says what it could not do, and with which key."""
    (workspace.folder / "a" / "b").mkdir(parents=True)

    with pytest.raises(StoreError, match="writing a/b"):
        workspace.put("a/b", b"")


def test_a_setting_that_lets_two_writers_win_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delta Lake's unsafe renames would lose one of two commits, so nothing runs with them."""
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")

    with pytest.raises(UsageError, match="lets two writers of one table both win"):
        Workspace.open("s3://bucket/prefix")


class _Forgetful(BaseHTTPRequestHandler):
    """A store that takes every write, whatever its conditions say."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("etag", '"1"')
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


def test_a_store_that_does_not_compare_and_swap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that ignores If-None-Match is refused when it is opened, before a pointer rests on it (P6, O1)."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "any")
        try:
            with pytest.raises(StoreError, match="does not compare-and-swap"):
                Workspace.open("s3://bucket/prefix")
        finally:
            server.shutdown()
