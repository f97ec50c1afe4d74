"""By which variables a store is reached: an environment's own before the usual ones, and never half of each."""

from __future__ import annotations

import os

import pytest

from seatrial.errors import UsageError
from seatrial.store_access import ALLOW_HTTP, USUAL, access_of, endpoint_of

KEY, SECRET = "SEATRIAL_STAGING_AWS_ACCESS_KEY_ID", "SEATRIAL_STAGING_AWS_SECRET_ACCESS_KEY"
ENDPOINT = "SEATRIAL_STAGING_AWS_ENDPOINT_URL"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, whatever the machine sets would count."""
    for name in os.environ:
        if "AWS_" in name:
            monkeypatch.delenv(name)


def test_an_environment_has_what_is_named_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own variables by their usual names; those of another environment and the usual ones are not among them."""
    for name, value in (
        (KEY, "key"),
        (SECRET, "s3cret"),
        ("SEATRIAL_TEST_AWS_REGION", "eu"),
        ("AWS_REGION", "us"),
    ):
        monkeypatch.setenv(name, value)

    found = access_of("staging")

    assert found.variables == {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "s3cret"}
    assert "s3cret" not in repr(found)
    assert access_of("production").variables == {}


def test_the_server_is_its_own_or_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint counts for all environments that have none."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://usual")
    monkeypatch.setenv(ENDPOINT, "https://own")

    assert (endpoint_of("staging"), endpoint_of("test")) == ("https://own", "https://usual")


@pytest.mark.parametrize(("said", "allowed"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_http_is_allowed_where_it_says_so(
    monkeypatch: pytest.MonkeyPatch, said: str, *, allowed: bool
) -> None:
    """As the usual variable is read; without one of its own, the usual one counts."""
    assert access_of("staging").allows_http is None
    monkeypatch.setenv(f"SEATRIAL_STAGING_{ALLOW_HTTP}", said)

    assert access_of("staging").allows_http is allowed


@pytest.mark.parametrize(
    ("variables", "message", "remedy"),
    [
        ({KEY: "k"}, f"{SECRET} must be set, as {KEY} is", "Set both"),
        ({SECRET: "s"}, f"{KEY} must be set, as {SECRET} is", "Set both"),
        ({KEY: "k", SECRET: ""}, f"{SECRET} must be set", "Set both"),
        ({"SEATRIAL_STAGING_AWS_ENDPOINT": "x"}, "SEATRIAL_STAGING_AWS_ENDPOINT means nothing", ""),
        (
            {KEY: "k", SECRET: "s", "AWS_SESSION_TOKEN": "t"},
            "AWS_SESSION_TOKEN is set, and would count",
            "unset AWS_",
        ),
        (
            {ENDPOINT: "x", "AWS_ENDPOINT_URL_S3": "y"},
            "AWS_ENDPOINT_URL_S3 is set, and would count",
            "unset AWS_",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str, remedy: str
) -> None:
    """A forgotten half, a mistyped name, and what libraries would take for the environment's."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message) as caught:
        access_of("staging")

    assert remedy in caught.value.remedy


def test_a_token_of_its_own_goes_with_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual session token does no harm where the environment has one, or keeps to the usual keys."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "usual")
    assert access_of("staging").variables == {}
    for name, value in ((KEY, "k"), (SECRET, "s"), ("SEATRIAL_STAGING_AWS_SESSION_TOKEN", "own")):
        monkeypatch.setenv(name, value)

    assert access_of("staging").variables["AWS_SESSION_TOKEN"] == "own"


def test_the_remedy_names_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that were used, and those of the environment where it has none yet."""
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY may use it" in USUAL.remedy
    assert "SEATRIAL_" not in USUAL.remedy
    assert f"set {ENDPOINT} and {KEY} and {SECRET}" in access_of("staging").remedy
    for name in (KEY, SECRET):
        monkeypatch.setenv(name, "x")

    own = access_of("staging").remedy

    assert "that the store of staging answers at AWS_ENDPOINT_URL" in own.replace("Check ", "")
    assert f"{KEY} and {SECRET} may use it" in own
