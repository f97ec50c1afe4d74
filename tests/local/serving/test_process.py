"""The server as a process: how it starts, how it refuses to, and that it ends without a trace."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psutil
import pytest
from tests.local.serving.conftest import (
    SEATRIAL,
    Ferry,
    Response,
    Server,
    crossings,
    infer_body,
    outputs,
    wait_for,
)

from seatrial.tables import Tables

pytestmark = pytest.mark.usefixtures("measured_processes")

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_without_a_trace(ferry: Ferry, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM finish what is being answered, exit with 0, and leave no process and no traceback."""
    body = orjson.dumps(infer_body(ROWS))
    head = (
        "POST /v2/models/ferry/infer HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with ferry.serve() as server:
        assert psutil.Process(server.process.pid).children(recursive=True) == []
        with socket.create_connection(address_of(server), timeout=10) as connection:
            connection.sendall(head.encode())
            # The server asks for the body, so it is at work on this request when the signal comes.
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
            server.process.send_signal(number)
            connection.sendall(body)
            answer = connection.makefile("rb").read()
        assert b" 200 OK" in answer.splitlines()[0]
        assert len(outputs(Response(200, orjson.loads(answer.split(b"\r\n\r\n")[1]), {}))["flagged"]) == len(
            ROWS
        )
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.errors
        line = server.process.stdout.read().decode() if server.process.stdout else ""
    assert line == f"Serving ferry (bundle {ferry.digests[0][:12]}) at {server.address}/v2/models/ferry\n"
    assert not list(ferry.root.parent.glob("address-*"))


def test_runs_with_what_its_image_has(ferry: Ferry) -> None:
    """With the distributions of the server's image alone it answers, takes an outcome, and ships both."""
    program = (sys.executable, str(Path(__file__).parents[2] / "support" / "server_environment.py"))
    with Server(ferry.root, [], {}, program=program) as server:
        (prediction_id,) = outputs(server.infer(ROWS[:1]))["prediction_id"]
        assert server.feedback({"prediction_id": prediction_id, "value": 1}).status == 200
        assert server.stop() == 0, server.errors

    tables = Tables(ferry.workspace, "ferry", "feedback")
    assert [tables.read(name).collect().height for name in ("predictions", "outcomes")] == [1, 1]


def address_of(server: Server) -> tuple[str, int]:
    host, port = server.address.removeprefix("http://").split(":")
    return host, int(port)


def test_drains_before_it_stops(ferry: Ferry) -> None:
    """After SIGTERM it answers for a while, also new connections, and each answer closes its connection."""
    with ferry.serve("--drain", "2") as server:
        kept = http.client.HTTPConnection(*address_of(server), timeout=10)
        kept.request("GET", "/v2/health/ready")
        before = kept.getresponse()
        assert before.read()
        assert before.getheader("connection") != "close"
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        # The signal is handled between two requests, so the first answers may still keep the connection.
        wait_for(lambda: server.get("/v2/health/live").headers.get("connection") == "close", "the draining")
        kept.request("POST", "/v2/models/ferry/infer", orjson.dumps(infer_body(ROWS[:1])))
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        answer.read()
        assert server.process.wait(10) == 0
        assert time.monotonic() - told >= 2


def test_stops_as_the_first_process_of_a_container(ferry: Ferry) -> None:
    """Process 1, which hears no signal without a handler, ends at SIGTERM also while it only waits."""
    wait = [SEATRIAL, "wait", "ferry", "--env", "production", "--workspace", str(ferry.root)]
    command = ["unshare", "--pid", "--fork", "--mount-proc", *wait]
    if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False).returncode:
        pytest.skip("process 1 of a namespace of its own wants the right to make one")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline().startswith("Waiting: The environment 'production' serves no bundle")
        (waiting,) = psutil.Process(starter.pid).children()
        waiting.send_signal(signal.SIGTERM)
        assert starter.wait(10) == 128 + signal.SIGTERM


def test_ends_with_its_parent(ferry: Ferry, tmp_path: Path) -> None:
    """With --exit-with-parent the server stops when the process that started it is killed with SIGKILL."""
    command = [
        SEATRIAL,
        "serve",
        "ferry",
        "--workspace",
        str(ferry.root),
        "--port",
        "0",
        "--exit-with-parent",
    ]
    code = (
        f"import subprocess; p = subprocess.Popen({command!r}, stdout=subprocess.PIPE, text=True);"
        "print(p.pid, flush=True); print(p.stdout.readline(), flush=True); p.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert "Serving ferry" in parent.stdout.readline()
        parent.kill()
        wait_for(
            lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the server to end"
        )


def test_takes_no_port_that_is_taken(ferry: Ferry, tmp_path: Path) -> None:
    """A second server on the same port is refused, even with a log of its own."""
    with ferry.serve() as server:
        port = server.address.rsplit(":", 1)[1]
        second = refused(ferry, "--port", port, "--log-folder", str(tmp_path / "log"))
        assert second.returncode == 2
        assert "cannot listen" in second.stderr


def refused(ferry: Ferry, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to refuse to start."""
    found = subprocess.run(
        [SEATRIAL, "serve", "ferry", "--workspace", str(ferry.root), "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in found.stderr
    return found


def test_refuses_to_start_with_a_bad_bundle(ferry: Ferry) -> None:
    """A bundle that was tampered with, or none at all, ends the start with the reason and its exit code."""
    assert refused(ferry, "--env", "production").returncode == 10
    path = ferry.root / "bundles" / "sha256" / ferry.digests[0] / "features.py"
    path.write_bytes(path.read_bytes() + b"\n")
    tampered = refused(ferry)
    assert tampered.returncode == 11
    assert "features.py" in tampered.stderr


def test_imports_what_it_needs_only(ferry: Ferry) -> None:
    """The server's process holds none of the training's libraries: it starts fast and stays small."""
    code = (
        "import sys; import seatrial.server; from seatrial.cli import serve;"
        "print([m for m in ('pandas', 'sklearn', 'kfp', 'mlflow', 'pandera', 'skl2onnx') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
    with ferry.serve() as server:
        assert server.infer(ROWS).status == 200
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert not [name for name in ("pandas", "sklearn", "kfp", "mlflow") if f"/{name}/" in mapped]
        assert psutil.Process(server.process.pid).memory_info().rss < 400 * 2**20


def test_cannot_unpickle(ferry: Ferry) -> None:
    """A features.py that unpickles is refused by the audit hook before anything of it runs further."""
    features = (ferry.folder / "features.py").read_bytes()
    evil = features + b"\nimport pickle\npickle.loads(pickle.dumps(print))\n"
    digest = ferry.make_bundle(**{"features.py": evil})
    answer = refused(ferry, "--bundle", digest)
    assert answer.returncode != 0
    assert "unpickle" in answer.stderr


def test_other_environment_of_variables_does_no_harm(ferry: Ferry) -> None:
    """The number of OpenMP threads and the like do not change an answer."""
    answers = []
    for threads in ("1", str(os.cpu_count())):
        with ferry.serve(OMP_NUM_THREADS=threads) as server:
            answers.append(outputs(server.infer(ROWS))["probability"])
    assert answers[0] == answers[1]
