"""A workspace on a real S3 store keeps every promise that one in a folder keeps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from tests.local.s3.conftest import Store

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.bundle.store import list_bundles
from seatrial.errors import PointerMovedError, StoreError, TableError, TamperedBundleError
from seatrial.feedback import FeedbackLog, count_outcomes
from seatrial.feedback.ids import new_id
from seatrial.feedback.shipping import feedback_tables, ship
from seatrial.promotion import promote, read_pointer
from seatrial.tables import Tables, digest_of
from seatrial.workspace import MARKER, Workspace
from support.bundles import AS_OF, bundle_files, loaded_bundle, make_bundle
from support.feedback_records import outcome, prediction

ROUNDS, WRITERS = 10, 16
ROWS = pl.DataFrame({"id": ["a", "b"], "value": [1.5, None]})


def test_objects(workspace: Workspace) -> None:
    """Objects are created once, replaced, measured, listed by whole names, and missing ones are None."""
    assert workspace.create("runs/a", b"first")
    assert not workspace.create("runs/a", b"second")
    assert workspace.get("runs/a") == b"first"
    workspace.put("runs/a", b"third")
    workspace.put("runs2/b", b"")

    assert (workspace.get("runs/a"), workspace.size("runs/a")) == (b"third", 5)
    assert (workspace.get("runs2/b"), workspace.size("runs2/b")) == (b"", 0)
    assert (workspace.get("runs/c"), workspace.size("runs/c")) == (None, None)
    assert workspace.list("runs") == ["runs/a"]
    assert workspace.list("nothing") == []


def test_objects_of_every_size_and_the_longest_key_come_back(workspace: Workspace) -> None:
    """What takes several parts to write, what is empty, and a key as long as one may be, round-trip (threats: O8)."""
    large = bytes(range(256)) * 100_000
    longest = "/".join(["a" * 127] * 4)
    for key, content in (("large", large), ("empty", b""), (longest, b"1")):
        assert workspace.create(key, content)
        assert not workspace.create(key, b"other")
        assert workspace.get(key) == content
        assert workspace.size(key) == len(content)


def test_one_of_many_creates(workspace: Workspace) -> None:
    """Of writers that create one object at the same moment, one is told that it did, and its bytes are there (O1)."""

    def write(number: int, key: str) -> bool:
        return workspace.create(key, str(number).encode())

    with ThreadPoolExecutor(WRITERS) as pool:
        for round_ in range(ROUNDS):
            won = list(pool.map(write, range(WRITERS), [f"race/{round_}"] * WRITERS))
            assert won.count(True) == 1
            assert workspace.get(f"race/{round_}") == str(won.index(True)).encode()


def test_what_was_written_is_read_and_listed_at_once(workspace: Workspace) -> None:
    """The store is no eventual one: a pointer that moved has moved for everybody (O1)."""
    for number in range(100):
        workspace.put("pointer", str(number).encode())
        assert workspace.get("pointer") == str(number).encode()
        workspace.create(f"log/{number:03d}", b"")
        assert len(workspace.list("log")) == number + 1


def test_a_batch_is_one_commit(workspace: Workspace) -> None:
    """A batch twice adds nothing, other content is refused, a replaced one leaves the old version readable."""
    tables = Tables(workspace, "m", "raw")
    digest = digest_of(ROWS)
    assert tables.write("t", ROWS, batch="2013-01", digest=digest, facts={}).status == "added"
    assert tables.write("t", ROWS, batch="2013-01", digest=digest, facts={}).status == "unchanged"
    changed = ROWS.with_columns(value=2.0)
    with pytest.raises(TableError, match="there already with other content"):
        tables.write("t", changed, batch="2013-01", digest=digest_of(changed), facts={})
    replaced = tables.write("t", changed, batch="2013-01", digest=digest_of(changed), facts={}, replace=True)

    assert (replaced.status, replaced.version) == ("replaced", 2)
    assert digest_of(tables.read("t", 1).collect()) == digest
    assert digest_of(tables.read("t").collect()) == digest_of(changed)


def test_racing_writers_of_one_batch(workspace: Workspace) -> None:
    """Each of many writers of a new table's first batch finds it there, and its rows count once."""
    tables = Tables(workspace, "m", "raw")

    def write(_: int) -> str:
        return tables.write("t", ROWS, batch="all", digest=digest_of(ROWS), facts={}).status

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(write, range(4)))

    assert sorted(statuses) == ["added", "unchanged", "unchanged", "unchanged"]
    assert tables.batches("t") == {"all": ROWS.height}


def test_a_bundle_is_checked_to_the_byte(workspace: Workspace) -> None:
    """A signed bundle loads from the store; with one byte changed there it does not (threats: O5)."""
    digest = make_bundle(workspace)
    trust = open_trust_root(workspace)
    assert load_bundle(workspace, digest, trust).files["features.py"] == bundle_files()["features.py"]
    assert list_bundles(workspace) == [digest]

    key = f"bundles/sha256/{digest}/card.md"
    content = workspace.get(key)
    assert content is not None
    workspace.put(key, bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(TamperedBundleError, match=r"card\.md of bundle .* was changed"):
        load_bundle(workspace, digest, trust)


def test_one_of_many_promotions(workspace: Workspace) -> None:
    """Of promotions that saw the same pointer one moves it, and the others are told (threats: P5)."""
    before = read_pointer(workspace, "local", "visits")
    bundles = [loaded_bundle(workspace, run=str(number)) for number in range(4)]

    def move(number: int) -> bool:
        try:
            promote(
                workspace, bundles[number], environment="local", expected=before, reason="race", as_of=AS_OF
            )
        except PointerMovedError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        moved = list(pool.map(move, range(4)))

    assert moved.count(True) == 1
    pointer = read_pointer(workspace, "local", "visits")
    assert (pointer.generation, pointer.digest) == (1, bundles[moved.index(True)].digest)


def test_feedback_is_shipped_once(workspace: Workspace, tmp_path: Path) -> None:
    """Predictions and outcomes of a log on this disk come into the store's tables, join, and count once."""
    ids = [new_id(), new_id()]
    tables = feedback_tables(workspace, "ferry")
    log = FeedbackLog(tmp_path / "log")
    log.append(prediction(*ids)).result()
    log.append(outcome(ids[0], 1.0)).result()
    log.seal()
    ship(log, tables)
    ship(log, tables)
    log.close()

    counts = count_outcomes(workspace, "ferry")
    assert (counts.predictions, counts.joined) == (2, 1)


def test_a_later_opening_writes_nothing_new(workspace: Workspace) -> None:
    """The marker that shows compare-and-swap is one object, however often the workspace is opened."""
    Workspace.open(workspace.root)

    assert workspace.get(MARKER) is not None


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "403 Forbidden"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "error sending request"),
        ("AWS_ALLOW_HTTP", "false", "builder error"),
    ],
)
def test_a_store_that_cannot_be_used(
    settings: Store, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """A wrong key, a store that is away, a forgotten setting: each an error that names what to check."""
    monkeypatch.setattr(
        "seatrial.workspace.ATTEMPTS", 1
    )  # Each waits some seconds for a store that restarts.
    monkeypatch.setenv(variable, value)
    with pytest.raises(StoreError, match=message) as caught:
        Workspace.open("s3://seatrial/errors").get("a")

    assert "AWS_ENDPOINT_URL" in caught.value.remedy


def test_a_bucket_that_is_not_there(settings: Store) -> None:
    """Opening a workspace in a bucket that nobody made says so, and not that it is empty."""
    with pytest.raises(StoreError, match="nothing to write to at s3://no-such-bucket/x"):
        Workspace.open("s3://no-such-bucket/x")
