from __future__ import annotations

import http.server
import io
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from seatrial.bundle.signing import public_key_file
from seatrial.cluster_setup import entry
from seatrial.cluster_setup.credentials import EnvironmentPlan, Plan, environment_settings, wanted_secrets
from seatrial.cluster_setup.object_store import BucketPlan, Grant, policy_document, read_credentials
from seatrial.cluster_setup.scrape_targets import targets, write_down
from seatrial.cluster_setup.unsigned_trailer_filter import is_refused
from seatrial.cluster_setup.wait import wait_for, why_silent
from seatrial.errors import StoreError, UsageError
from seatrial.feedback.concealing import KEY_BYTES

PLAN = Plan(
    namespace="platform",
    minio=True,
    mariadb=True,
    endpoint="http://minio.platform.svc:9000",
    region="us-east-1",
    mlflow="http://mlflow.platform.svc:5000",
    environments={"test": EnvironmentPlan(namespace="test", workspace="s3://seatrial/test")},
)
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


class _Page(http.server.BaseHTTPRequestHandler):
    """Answers /ready with 200 and all else with 503."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    """A server on this machine; its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_waiting_ends_when_all_answer(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A page and a port that answer are said to, one after the other."""
    port = page.replace("http", "tcp")

    wait_for([f"{page}/ready", port])

    assert capsys.readouterr().out == f"seatrial: {page}/ready answers\nseatrial: {port} answers\n"


def test_waiting_says_what_for(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """While a page says that it is not ready, the log says which page, and the page's status."""
    with pytest.raises(StoreError, match=r"has not answered within 0.1 seconds: HTTP 503\."):
        wait_for([f"{page}/broken"], limit_seconds=0.1)

    assert capsys.readouterr().out.startswith(f"seatrial: waiting for {page}/broken (HTTP 503)\n")


def test_closed_port_is_silent() -> None:
    """A port that nobody listens on has not answered, and the reason is the system's."""
    with socket.socket() as bound:  # bound and not listening: nobody else gets it
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]

        assert "refused" in why_silent(f"tcp://127.0.0.1:{port}")
        assert "refused" in why_silent(f"http://127.0.0.1:{port}/")


def test_grpc_method_answers() -> None:
    """A server that has the method has answered; one without it and a port that is silent have not."""
    answers = {"Get": grpc.unary_unary_rpc_method_handler(lambda request, _: request)}
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("trial.Lineage", answers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()

        assert why_silent(f"grpc://127.0.0.1:{port}/trial.Lineage/Get") == ""
        assert "UNIMPLEMENTED" in why_silent(f"grpc://127.0.0.1:{port}/trial.Other/Get")

        server.stop(grace=None).wait()
        assert "UNAVAILABLE" in why_silent(f"grpc://127.0.0.1:{port}/trial.Lineage/Get")


@pytest.mark.parametrize(
    "address",
    ["minio:9000", "tcp://minio", "ftp://minio:1", "s3://", "", "grpc://minio:1", "grpc://minio/a/b"],
)
def test_addresses_that_are_none(address: str) -> None:
    """What is no address is refused at once instead of waited for."""
    with pytest.raises(UsageError, match="An address must be one of tcp"):
        why_silent(address)


def test_bucket_needs_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a bucket without credentials names the variables that are missing."""
    for name in (*AWS, "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")

    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL and AWS_SECRET_ACCESS_KEY must be set"):
        why_silent("s3://bucket")


def test_secrets_are_random() -> None:
    """No value is said twice, in one plan or from one to the next: nothing has a default, key names included."""
    settings = environment_settings(PLAN, PLAN.environments["test"]).values()
    secrets = [secret for _ in range(2) for secret in wanted_secrets(PLAN)]
    drawn = [value for secret in secrets for value in secret.values.values() if value not in settings]

    assert len(drawn) == 2 * 14
    assert len(set(drawn)) == len(drawn)
    assert all(value and (len(value) in {20, 32, 40} or "PRIVATE KEY" in value) for value in drawn)


def test_secret_values_are_not_shown() -> None:
    """A Secret that is printed by mistake shows its name and no value."""
    (root, *_) = wanted_secrets(PLAN)

    assert repr(root) == "WantedSecret(name='minio-root')"


def test_environment_knows_its_platform() -> None:
    """An environment's Secret has all that its steps and models need to find store, registry and workspace."""
    (environment,) = [secret for secret in wanted_secrets(PLAN) if secret.name == "environment-test"]

    settings = {key: value for key, value in environment.values.items() if key not in AWS}
    assert environment.values.keys() > AWS
    assert settings == {
        "AWS_ENDPOINT_URL": "http://minio.platform.svc:9000",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "MLFLOW_S3_ENDPOINT_URL": "http://minio.platform.svc:9000",
        "MLFLOW_TRACKING_URI": "http://mlflow.platform.svc:5000",
        "SEATRIAL_WORKSPACE": "s3://seatrial/test",
    }


def test_keys_of_another_store_are_the_users() -> None:
    """Keys of an external store, and passwords of an external database, are asked for and not made up."""
    external = PLAN.model_copy(
        update={"minio": False, "mariadb": False, "endpoint": "https://s3.example.org"}
    )
    wanted = {secret.name: secret.values for secret in wanted_secrets(external)}

    assert "minio-root" not in wanted
    assert wanted["mariadb"] == {"kfp-password": None, "mlmd-password": None, "mlflow-password": None}
    assert wanted["mlflow-object-store"] == dict.fromkeys(AWS)
    assert {key for key, value in wanted["environment-test"].items() if value is None} == AWS
    assert wanted["environment-test"]["AWS_ALLOW_HTTP"] == "false"


def test_signing_key_has_its_public_half() -> None:
    """What a trust root gets of a signing key is named by the key and holds nothing private."""
    (secret,) = [secret for secret in wanted_secrets(PLAN) if secret.name == "signing-key-test"]
    private = secret.values["signing-key.pem"]
    assert private is not None

    name, public = public_key_file(private.encode())

    assert len(name) == len("0" * 64 + ".pem")
    assert public.startswith(b"-----BEGIN PUBLIC KEY-----")
    assert public_key_file(private.encode()) == (name, public)


def test_privacy_key_is_one() -> None:
    """The key that is made for an environment is as long as the feedback log wants it."""
    (secret,) = [secret for secret in wanted_secrets(PLAN) if secret.name == "privacy-key-test"]

    assert [len(value or "") for value in secret.values.values()] == [KEY_BYTES]


def test_what_is_no_signing_key_is_refused() -> None:
    """A Secret that holds something else than a key is an error with words."""
    with pytest.raises(StoreError, match="The signing key cannot be read"):
        public_key_file(b"not a key")


def test_policy_of_a_prefix() -> None:
    """A policy names its prefix with a slash, for listing too; who may only add may delete nothing."""
    document = policy_document([Grant(bucket="b", prefix="test", access="append")])

    location, listing, objects = document["Statement"]
    assert location["Action"] == ["s3:GetBucketLocation"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["test/", "test/*"]}}
    assert objects["Resource"] == ["arn:aws:s3:::b/test/*"]
    assert "s3:DeleteObject" not in objects["Action"]
    assert not any("*" in action for statement in document["Statement"] for action in statement["Action"])


def test_policy_of_a_bucket() -> None:
    """A grant without a prefix is for the whole bucket and for no other."""
    document = policy_document([Grant(bucket="b", access="full")])

    resources = [resource for statement in document["Statement"] for resource in statement["Resource"]]
    assert set(resources) == {"arn:aws:s3:::b", "arn:aws:s3:::b/*"}
    assert "s3:DeleteObject" in document["Statement"][2]["Action"]


def test_credentials_that_are_not_mounted(tmp_path: Path) -> None:
    """A Secret without the key is an error that names the user and what to look at."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "access-key").write_text("name")

    with pytest.raises(StoreError, match="The credentials of 'mlflow' cannot be read") as refused:
        read_credentials(tmp_path, "mlflow")
    assert "name" not in refused.value.message.replace("named", "")


@pytest.mark.parametrize(
    ("target", "claims", "refused"),
    [
        ("/b/k", ["STREAMING-UNSIGNED-PAYLOAD-TRAILER"], True),
        ("/b/k", ["UNSIGNED-PAYLOAD", "streaming-unsigned-payload-trailer"], True),
        ("/b/k?X-Amz-Content-Sha256=STREAMING-UNSIGNED-PAYLOAD-TRAILER", [], True),
        ("/b/k?X-Amz-Content-Sha256=STREAMING-UNSIGNED%2dPAYLOAD-TRAILER", [], True),
        ("/b/k", ["UNSIGNED-PAYLOAD"], False),
        ("/b/k", ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"], False),
        ("/b/STREAMING-UNSIGNED-PAYLOAD-TRAILER", ["e3b0c442"], False),
        ("/b/k?list-type=2", [], False),
    ],
)
def test_what_the_filter_refuses(target: str, claims: list[str], refused: bool) -> None:
    """Exactly the claim of an unsigned payload with a trailer is refused, in any spelling, in header and query."""
    assert is_refused(target, claims) is refused


def test_plan_of_another_version_is_refused() -> None:
    """A plan with a key that is not known is an error that names chart and image."""
    with pytest.raises(UsageError, match="Chart and image must be of the same version"):
        entry.read_plan(BucketPlan, '{"name": "b", "old_versions_days": 1, "colour": "red"}')


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (StoreError("It is full.", remedy="Empty it."), 17, "seatrial: error: It is full. Empty it.\n"),
    ],
)
def test_command_ends_with_its_code(
    error: StoreError | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command ends with 0, or with the code of its error and one line instead of a traceback."""

    def command() -> None:
        if error:
            raise error

    with pytest.raises(SystemExit) as ended:
        entry.run(command)

    assert ended.value.code == code
    assert capsys.readouterr().out == said


def pod(
    name: str, *, phase: str = "Running", ready: str = "True", **metadata: dict[str, str]
) -> dict[str, Any]:
    """A pod of ours, as Kubernetes's API says it."""
    labels = {"app.kubernetes.io/part-of": "seatrial", "app.kubernetes.io/name": "part"}
    return {
        "metadata": {
            "name": name,
            "namespace": "platform",
            "labels": {**labels, **metadata.get("labels", {})},
            "annotations": metadata.get("annotations"),
        },
        "status": {
            "phase": phase,
            "podIP": "10.0.0.7",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": ready}],
        },
    }


def test_a_line_is_written_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that write to one log tear no line of another's apart."""
    written: list[str] = []

    class Log(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    monkeypatch.setattr("sys.stdout", Log())
    entry.say("looks at runs")

    assert [text for text in written if text] == ["seatrial: looks at runs\n"]


def test_targets_are_what_annotations_say() -> None:
    """A pod with annotations is read at their port and path, with labels that say which pod and model it is."""
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "9000", "prometheus.io/path": "/m"}
    model = pod("served", annotations=annotations, labels={"seatrial.io/model": "flights"})

    found = targets([model, pod("silent"), pod("off", annotations={"prometheus.io/scrape": "false"})])

    assert found.metrics == [
        {
            "targets": ["10.0.0.7:9000"],
            "labels": {
                "namespace": "platform",
                "pod": "served",
                "component": "part",
                "model": "flights",
                "__metrics_path__": "/m",
            },
        }
    ]


def test_readiness_is_of_pods_that_go_on() -> None:
    """Each pod of ours says whether it is ready; one that has ended, or is somebody else's, is left out."""
    other = pod("other", labels={"app.kubernetes.io/part-of": "else"})
    waiting = pod("waiting", phase="Pending", ready="False")

    found = targets([pod("good"), waiting, pod("job", phase="Succeeded", ready="False"), other])

    assert [(group["labels"]["pod"], group["labels"]["ready"]) for group in found.readiness] == [
        ("good", "true"),
        ("waiting", "false"),
    ]


def test_pod_without_an_address_is_read_later() -> None:
    """A pod that has no address yet is no target, and no error."""
    starting = pod("starting", annotations={"prometheus.io/scrape": "true", "prometheus.io/port": "9"})
    del starting["status"]["podIP"]

    assert targets([starting]).metrics == []


def test_files_are_whole(tmp_path: Path) -> None:
    """Both files are there with what was found, in Prometheus's form, and nothing half-written beside them."""
    write_down(targets([pod("good")]), tmp_path)

    assert json.loads((tmp_path / "metrics.json").read_text()) == []
    assert json.loads((tmp_path / "readiness.json").read_text())[0]["targets"] == ["good"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "readiness.json"]
