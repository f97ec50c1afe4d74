"""What an environment demands before it serves a bundle, judged with what was really asked and answered there."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.local.serving.conftest import CONTRACT, Ferry, Server, crossings, outputs

from seatrial.bundle.manifest import sha256
from seatrial.delivery.reconcile import reconcile
from seatrial.errors import BundleError, ContractError, GateError, UntrustedBundleError, UsageError
from seatrial.feedback.joining import read_predictions
from seatrial.promotion.approvals import GATES
from seatrial.promotion.environment import FILE
from seatrial.promotion.pointer import Stage, append, pointer_log, read_pointer
from seatrial.verdicts import Outcome, Verdict
from support.harbour import AS_OF, MODEL, Harbour
from support.killed_delivery import ROWS as ROWS_RECORDED
from support.killed_delivery import record_comparisons

ROWS = crossings(6, start=AS_OF - timedelta(days=5), seed=7)[:400]


def demand(harbour: Harbour, environment: str, demands: str) -> None:
    """Let an environment demand something."""
    path = harbour.root / "manifests/environments" / environment / FILE
    path.write_text(path.read_text().partition("demands:")[0] + f"demands: {{{demands}}}\n")


def ask(harbour: Harbour, environment: str, *, outcomes: bool = False) -> None:
    """Ask an environment's server all rows, report what came of them, and let it end, which ships all of it."""
    trust = harbour.root / f"manifests/environments/{environment}/trusted"
    variables = {"SEATRIAL_TRUST": str(trust)} if trust.is_dir() else {}
    root = Path(harbour.workspace(environment).root)
    with Server(root, ["--env", environment], variables, model=MODEL) as server:
        ids = outputs(server.infer(ROWS))["prediction_id"]
        if outcomes:
            known = [
                {"prediction_id": name, "value": row["late"], "occurred_at": row["arrived_at"].isoformat()}
                for name, row in zip(ids, ROWS, strict=True)
                if row["late"] is not None
            ]
            assert server.feedback(*known).status == 200
        assert server.stop() == 0


def judged(verdicts: list[Verdict], check: str) -> Verdict:
    """Return the verdict of one check."""
    (found,) = [verdict for verdict in verdicts if verdict.check == check]
    return found


@pytest.fixture
def staged(harbour: Harbour) -> Harbour:
    """A harbour whose staging serves the first bundle, and whose test serves the second."""
    first, second = harbour.digests
    harbour.train(first)
    harbour.deliver("staging")
    harbour.train(second)
    return harbour


def test_recorded_requests_are_answered_by_both(staged: Harbour) -> None:
    """What was asked in staging is answered again by both bundles, and the share of other flags is the value."""
    ask(staged, "staging")
    demand(staged, "staging", "replay: {days: 7, minimum_rows: 100, maximum_flags_changed: 1.0}")

    found = judged(staged.propose("staging").verdicts, "replay")

    assert found.outcome is Outcome.PASS
    assert found.value is not None
    assert 0 <= found.value < 0.2  # Both learned from the same rows.
    assert found.evidence["compared with"] == staged.digests[0]
    assert found.evidence["largest difference of probability"] > 0
    assert "Share of 400 recorded rows" in found.message


def test_too_few_recorded_requests_are_a_failure(staged: Harbour) -> None:
    """What cannot be compared has not passed; nothing is proposed, and the verdict is in the record."""
    demand(staged, "staging", "replay: {days: 7, minimum_rows: 100, maximum_flags_changed: 1.0}")

    with pytest.raises(GateError, match=r"replay \(0 recorded rows in 7 days; at least 100 are needed"):
        staged.propose("staging")
    assert staged.git("branch", "--list", f"promote/staging/{MODEL}/{staged.digests[1][:12]}") == ""
    last = pointer_log(staged.workspace("staging"), "staging", MODEL).all()[-1].content
    assert [v["outcome"] for v in last["verdicts"] if v["check"] == "replay"] == ["fail"]


@pytest.mark.parametrize(("minimum", "outcome"), [(0.5, Outcome.PASS), (0.99, Outcome.FAIL)])
def test_live_quality_of_the_environment_before(staged: Harbour, minimum: float, outcome: Outcome) -> None:
    """A bundle is judged by the outcomes of what it answered in staging before production takes it."""
    ask(staged, "staging", outcomes=True)
    demand(
        staged, "production", f"live_quality: {{minimum_roc_auc: {minimum}, minimum_outcomes: 300, days: 28}}"
    )

    found = judged(staged.propose("production", dry_run=True).verdicts, "live_quality")

    assert found.outcome is outcome
    assert found.evidence["outcomes"] == sum(row["late"] is not None for row in ROWS)


@pytest.mark.parametrize(
    ("demands", "check"),
    [
        ("bundle_age: {maximum: 1s}", "bundle_age"),
        ("data_age: {maximum: 1d}", "data_age"),
        ("live_quality: {minimum_roc_auc: 0.5}", "live_quality"),
        ("shadow_agreement: {minimum: 0.5}", "shadow_agreement"),
        ("load_test: {seconds: 1}", "load_test"),
    ],
)
def test_a_demand_that_is_not_met_stops_the_move(staged: Harbour, demands: str, check: str) -> None:
    """The error names it; here the bundle is too old, tells no age of data, and nothing is known of it live."""
    demand(staged, "staging", demands)

    with pytest.raises(GateError, match=f"does not meet what staging demands: {check}"):
        staged.propose("staging")
    assert staged.served("staging") == staged.digests[0]


@pytest.mark.parametrize(("minimum", "outcome"), [(1.0, Outcome.PASS), (0.5, Outcome.FAIL)])
def test_agreement_in_the_shadow_of_the_environment_before(
    staged: Harbour, minimum: float, outcome: Outcome
) -> None:
    """What staging's servers recorded of its roll-out counts: rows that it failed are not compared, others are."""
    source, (first, second) = staged.workspace("staging"), staged.digests
    record_comparisons(source, Stage(3, first, 0), failed=False)
    record_comparisons(source, Stage(3, first, 0), failed=True)
    record_comparisons(source, Stage(3, second, 0), failed=False)
    rows = ROWS_RECORDED if outcome is Outcome.PASS else ROWS_RECORDED + 1
    demand(staged, "production", f"shadow_agreement: {{minimum: {minimum}, minimum_rows: {rows}}}")

    found = judged(staged.propose("production", dry_run=True).verdicts, "shadow_agreement")

    assert found.outcome is outcome
    assert f"of {ROWS_RECORDED} rows" in found.message


@pytest.mark.parametrize(("bound", "outcome"), [(60_000.0, Outcome.PASS), (0.001, Outcome.FAIL)])
def test_a_server_under_the_contracts_load(staged: Harbour, bound: float, outcome: Outcome) -> None:
    """A real server of the bundle is asked at the contract's rate, and nothing of that is taken for live traffic."""
    ferry = Ferry(staged.root / "models" / MODEL, staged.root / ".seatrial")
    load = f"serving: {{load: {{requests_per_second: 40, p99_milliseconds: {bound}}}, "
    digest = ferry.make_bundle(**{"model.yaml": CONTRACT.replace("serving: {", load).encode()})
    demand(staged, "staging", "load_test: {seconds: 2}")

    found = judged(staged.propose("staging", digest=digest, dry_run=True).verdicts, "load_test")

    assert found.outcome is outcome
    assert found.value is not None
    assert found.message.startswith("99th percentile of 80 requests, 40 a second")
    assert found.evidence["failed"] == 0
    assert read_predictions(staged.workspace("test"), MODEL).is_empty()


def test_a_bundle_must_be_servable_there(harbour: Harbour) -> None:
    """Without the tables that its features read, the environment could not serve it."""
    harbour.train(harbour.digests[0])
    shutil.rmtree(harbour.root / ".seatrial-staging/tables")

    with pytest.raises(GateError, match="It cannot be served there: The features need the table"):
        harbour.propose("staging")


def _leave_out(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [verdict for verdict in verdicts if verdict["check"] != "bundle_age"]


FORGED: dict[str, Any] = {
    "a verdict is left out": _leave_out,
    "none is there": lambda _: [],
    "one failed": lambda verdicts: [{**verdicts[0], "outcome": "fail"}, *verdicts[1:]],
    "a value is a text": lambda verdicts: [{**verdict, "value": "1"} for verdict in verdicts],
    "a pass has no value": lambda verdicts: [
        {**verdict, "value": None, "bound": 1.0} for verdict in verdicts
    ],
    "they are no list": lambda _: "all passed",
}


@pytest.mark.parametrize("case", FORGED)
def test_verdicts_are_read_again_before_the_move(harbour: Harbour, case: str) -> None:
    """What the record says of the gates is checked against what is demanded; a forged one serves nothing (P9)."""
    harbour.train(harbour.digests[0])
    proposal = harbour.propose("staging")
    assert proposal.branch is not None
    harbour.merge(proposal.branch.name)
    verdicts = [verdict.model_dump(mode="json") for verdict in proposal.verdicts]
    content = {"kind": GATES, "digest": proposal.digest, "verdicts": FORGED[case](verdicts)}
    workspace = harbour.workspace("staging")
    append(workspace, "staging", MODEL, content, expected=read_pointer(workspace, "staging", MODEL))

    with pytest.raises(GateError):
        reconcile("staging")
    assert harbour.served("staging") is None


def test_a_maker_who_is_not_trusted_there(harbour: Harbour) -> None:
    """The key that staging does not trust may have signed a good bundle: it stays where it is."""
    harbour.train(harbour.digests[0])
    for path in (harbour.root / "manifests/environments/staging/trusted").glob("*.pem"):
        path.unlink()
    stranger = next((harbour.root / "mallory/keys/trusted").glob("*.pem"))
    shutil.copy(stranger, harbour.root / "manifests/environments/staging/trusted")

    with pytest.raises(UntrustedBundleError, match="seatrial environments trust staging KEY.pem"):
        harbour.propose("staging")
    assert harbour.workspace("staging").list("bundles") == []


def test_a_bundle_that_was_changed_is_not_copied(harbour: Harbour) -> None:
    """Every digest is checked before a byte is written elsewhere."""
    harbour.train(harbour.digests[0])
    path = harbour.root / f".seatrial/bundles/sha256/{harbour.digests[0]}/model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    with pytest.raises(BundleError, match="model.onnx of bundle .* was changed"):
        harbour.propose("staging")
    assert harbour.workspace("staging").list("bundles") == []


def test_the_copy_is_byte_by_byte_the_same(harbour: Harbour) -> None:
    """Nothing is packed anew on the way: each file of the copy has the bytes of the original."""
    harbour.train(harbour.digests[0])
    harbour.propose("staging")
    there, here = harbour.workspace("test"), harbour.workspace("staging")
    prefix = f"bundles/sha256/{harbour.digests[0]}"

    assert here.list(prefix) == there.list(prefix)
    for key in here.list(prefix):
        assert sha256(here.get(key) or b"") == sha256(there.get(key) or b"")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            ("workspace: .seatrial-staging", "workspace: .seatrial-production"),
            UsageError,
            "share the workspace",
        ),
        (("workspace: .seatrial-staging", "workspace: ./x/../.seatrial"), UsageError, "share the workspace"),
        (("name: staging", "name: stage"), ContractError, "must be the folder's name, 'staging'"),
        (("after: test", "after: dev"), UsageError, "after must be one of"),
        (("after: test", "aftr: test"), ContractError, "aftr"),
        (("version: 1", "version: [1"), ContractError, "is not valid YAML"),
    ],
)
def test_a_wrong_environment_is_refused(
    harbour: Harbour, change: tuple[str, str], error: type[Exception], message: str
) -> None:
    """It is named before anything is looked at (threats: P14)."""
    path = harbour.root / "manifests/environments/staging" / FILE
    path.write_text(path.read_text().replace(*change))

    with pytest.raises(error, match=message):
        harbour.propose("staging")


def test_an_environment_that_there_is_not(harbour: Harbour) -> None:
    """A mistyped name is refused with those that there are."""
    with pytest.raises(UsageError, match="no environment 'stagin' .* There are: production, staging, test."):
        harbour.propose("stagin")
