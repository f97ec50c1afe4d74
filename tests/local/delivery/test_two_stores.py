"""Environments on object stores of different servers, each with keys of its own: the way by commands, and back."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import orjson
import pytest
from tests.local.delivery.conftest import Cli, json

from seatrial.bundle import load_bundle
from seatrial.delivery.keys import trust_maker
from seatrial.delivery.load_server import started
from seatrial.errors import UsageError
from seatrial.promotion.environment import open_environment
from seatrial.promotion.pointer import read_pointer
from support.harbour import MODEL, Harbour
from support.killed_delivery import ROWS, record_comparisons
from support.stoppable_store import StoppableStore

ADDRESS = "s3://seatrial/seatrial"
"""The same for test and for staging, in buckets of the same name: the servers alone tell them apart."""
PRODUCTION = "s3://seatrial/production"
OTHER_KEYS = ("somebody", "somebody-elses-secret")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StoppableStore, StoppableStore]]:
    """Two servers, whose administrators have other keys."""
    made = tuple(StoppableStore(tmp_path_factory.mktemp(name)) for name in ("first", "second"))
    for store in made:
        store.start()
    yield made[0], made[1]
    for store in made:
        store.kill()


def own(environment: str, settings: dict[str, str]) -> dict[str, str]:
    """Return the variables by which settings are those of one environment alone."""
    return {f"SEATRIAL_{environment.upper()}_{name}": value for name, value in settings.items()}


@pytest.fixture
def apart(
    harbour: Harbour,
    servers: tuple[StoppableStore, StoppableStore],
    monkeypatch: pytest.MonkeyPatch,
) -> Harbour:
    """Test, which serves a bundle, and production are on the first server, staging on the second.

    Each is reached by keys of its own, and those of test may only read.
    """
    first, second = servers
    trust_maker("test", next((harbour.root / ".seatrial/keys/trusted").glob("*.pem")))
    harbour.git("add", ".")
    harbour.git("commit", "--quiet", "--message", "Whom test trusts")
    harbour.train(harbour.digests[0])
    first.clear()
    second.clear()
    for store, folder, prefix in (
        (first, ".seatrial", "seatrial"),
        (second, ".seatrial-staging", "seatrial"),
        (first, ".seatrial-production", "production"),
    ):
        store.upload(harbour.root / folder, prefix)
    for name in first.settings:
        monkeypatch.delenv(name, raising=False)
    variables = {
        **own("test", first.add_user("reads-test", "seatrial", writes=False)),
        **own("staging", second.settings),
        **own("production", first.add_user("production", "production")),
        "SEATRIAL_WORKSPACE_TEST": ADDRESS,
        "SEATRIAL_WORKSPACE_STAGING": ADDRESS,
        "SEATRIAL_WORKSPACE_PRODUCTION": PRODUCTION,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("staging", "production"):
        open_environment(name).open_workspace()  # It writes the marker of a store that compares and swaps.
    return harbour


def promoted(harbour: Harbour, cli: Cli, to: str) -> str:
    """Prepare a move and merge it; return the bundle's digest."""
    said = json(cli("promote", MODEL, "--to", to, "--json"))
    harbour.merge(said["branch"]["name"])
    return str(said["digest"])


def test_a_bundle_goes_from_server_to_server(
    apart: Harbour, cli: Cli, servers: tuple[StoppableStore, StoppableStore]
) -> None:
    """From the first to the second, and back to the first as another user: digests and signature hold in each."""
    (digest, other), key = apart.digests, ("--key", apart.root / "alice.key")
    assert promoted(apart, cli, "staging") == digest
    assert json(cli("reconcile", "staging", "--json"))[0]["state"] == "moved"
    assert promoted(apart, cli, "production") == digest
    assert cli("reconcile", "production")[0] == 22
    assert cli("approve", MODEL, "--env", "production", *key)[0] == 0
    assert json(cli("reconcile", "production", "--json"))[0]["state"] == "moved"

    staging = open_environment("staging")
    copied = load_bundle(staging.open_workspace(), digest, staging.open_trust_root())
    assert copied.digest == digest
    assert servers[0].keys(f"production/bundles/sha256/{digest}") == servers[1].keys(
        f"seatrial/bundles/sha256/{digest}"
    )
    assert servers[1].keys("production") == {}
    assert cli("audit")[0] == 0
    kinds = [said["kind"] for said in json(cli("history", MODEL, "--env", "production", "--json"))]
    assert kinds == ["gates", "approval", "promotion"]
    listed = {said["environment"]: said["serves"] for said in json(cli("environments", "list", "--json"))}
    assert listed == {"test": digest, "staging": digest, "production": digest}
    for name in listed:
        assert cli("wait", MODEL, "--env", name, "--limit", 1)[0] == 0

    apart.rules("staging", f"rollout: {{steps: [0, 50], minimum_rows: {ROWS}, minimum_time: 1s}}\n")
    apart.git("commit", "--quiet", "--all", "--message", "Step by step")
    proposed = json(cli("promote", MODEL, "--to", "staging", "--bundle", other, "--json"))
    apart.merge(proposed["branch"]["name"])
    assert cli("reconcile", "staging")[0] == 0
    stage = read_pointer(staging.open_workspace(), "staging", MODEL).stage
    assert stage is not None
    record_comparisons(staging.open_workspace(), stage, failed=False)
    shown = json(cli("rollout", MODEL, "--env", "staging", "--json"))
    assert (shown["candidate"], shown["judged"]["rows"] >= ROWS) == (other, True)
    assert json(cli("rollback", MODEL, "--env", "staging", "--json"))["digest"] == digest


@pytest.mark.parametrize(
    ("environment", "variable", "value"),
    [
        ("staging", "AWS_ACCESS_KEY_ID", OTHER_KEYS[0]),
        ("staging", "AWS_SECRET_ACCESS_KEY", OTHER_KEYS[1]),
        ("test", "AWS_SECRET_ACCESS_KEY", OTHER_KEYS[1]),
    ],
)
def test_a_wrong_key_is_said_and_nothing_is_written(
    apart: Harbour,
    cli: Cli,
    servers: tuple[StoppableStore, StoppableStore],
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    variable: str,
    value: str,
) -> None:
    """The error names whose store it is and what to set; neither server nor git has anything of the move."""
    promoted(apart, cli, "staging")
    before, branches = [store.keys() for store in servers], apart.git("branch", "--list")
    monkeypatch.setenv(f"SEATRIAL_{environment.upper()}_{variable}", value)

    code, out, err = cli("promote", MODEL, "--to", "staging", "--bundle", apart.digests[1])

    assert (code, out) == (17, "")
    assert f"error: The store of {environment} failed while" in err
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    assert "{} and {} may use it".format(*(f"SEATRIAL_{environment.upper()}_AWS_{n}" for n in names)) in err
    assert "secret" not in err
    assert [store.keys() for store in servers] == before
    assert apart.git("branch", "--list") == branches

    if environment == "staging":
        for command in (
            ("reconcile", "staging"),
            ("audit", "staging"),
            ("history", MODEL, "--env", "staging"),
            ("rollout", MODEL, "--env", "staging"),
            ("rollback", MODEL, "--env", "staging"),
            ("approve", MODEL, "--env", "staging", "--key", apart.root / "alice.key"),
        ):
            code, _, err = cli(*command)
            assert (code, "The store of staging failed while" in err) == (17, True), (command, err)
        assert [store.keys() for store in servers] == before


def test_the_usual_variables_are_those_of_whoever_has_none(
    apart: Harbour,
    cli: Cli,
    servers: tuple[StoppableStore, StoppableStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where only staging has variables of its own, the others' are the usual ones; forgotten ones are said."""
    for name in servers[0].settings:
        monkeypatch.delenv(f"SEATRIAL_TEST_{name}")
    code, _, err = cli("promote", MODEL, "--to", "staging")
    assert code == 17
    assert "The store of test failed while" in err
    assert "If test has a store or keys of its own, set SEATRIAL_TEST_AWS_ENDPOINT_URL and" in err

    for name, value in servers[0].settings.items():
        monkeypatch.setenv(name, value)
    assert promoted(apart, cli, "staging") == apart.digests[0]
    assert json(cli("reconcile", "staging", "--json"))[0]["state"] == "moved"


def test_one_server_and_one_address_are_one_workspace(
    apart: Harbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two environments may have the same address on two servers, and on one server they may not."""
    assert open_environment("staging").open_workspace() != open_environment("test").open_workspace()
    endpoint = open_environment("test").place[1]
    monkeypatch.setenv("SEATRIAL_STAGING_AWS_ENDPOINT_URL", f"{endpoint}/")

    with pytest.raises(UsageError, match="share the workspace s3://seatrial/seatrial"):
        open_environment("staging")


def test_a_server_under_load_finds_the_bundle(apart: Harbour) -> None:
    """A process that serves an environment's bundle has that one's store as its only one; here it may just read."""
    environment = open_environment("test")
    workspace, trust = environment.open_workspace(), environment.open_trust_root()
    bundle = load_bundle(workspace, apart.digests[0], trust)

    with (
        started(bundle, workspace, trust) as address,
        urllib.request.urlopen(f"http://{address}/v2/models/{MODEL}") as answer,
    ):
        assert orjson.loads(answer.read())["name"] == MODEL
