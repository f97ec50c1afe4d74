"""Asks a served model without a pause, from a pod, and says what came back: it runs with Python alone.

Half of the threads open a connection for each request, as many clients do; the others keep theirs,
and open another one when the server closes it. It stops when the file of its third argument is
there, and prints one JSON document: answers by status, failures, bundles in the order of their
first answer, when an answer came by another bundle than the one before it, and the ids of all predictions that
were answered. Until then the file beside it, with the suffix ``.progress``, has how many were answered and how
many failed so far, as JSON.

While the file beside it with the suffix ``.routes`` is there, it does what a mesh does: each request goes to one of the
hosts there by their weights, and a copy of it to the host that is the mirror; what that answers is counted and dropped.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

THREADS = 4
TIMEOUT_SECONDS = 60
"""A server on a busy machine may be slow, which is no fault here; a request that is lost takes longer than this."""
LOOK_SECONDS = 0.2


@dataclass
class Seen:
    """What came back so far."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    bundles: list[str] = field(default_factory=list)
    changes: list[tuple[float, str]] = field(default_factory=list)
    predictions: list[str] = field(default_factory=list)
    hosts: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, status: int, body: bytes) -> None:
        """Note an answer."""
        with self.lock:
            self.statuses[status] += 1
            if status != http.client.OK:
                self.failures.append(f"{time.time():.2f} {status}: {body.decode(errors='replace')}")
                return
            content: dict[str, Any] = json.loads(body)
            outputs = {output["name"]: output["data"] for output in content["outputs"]}
            self.predictions += outputs["prediction_id"]
            bundle = content["model_version"]
            if bundle not in self.bundles:
                self.bundles.append(bundle)
            if not self.changes or self.changes[-1][1] != bundle:
                self.changes.append((time.time(), bundle))

    def fail(self, error: Exception) -> None:
        """Note a request without an answer."""
        with self.lock:
            self.failures.append(f"{time.time():.2f} {type(error).__name__}: {error}")


def route(host: str, routes: Path) -> tuple[str, str]:
    """Return which host a request goes to, and which one a copy of it, if any."""
    try:
        said = json.loads(routes.read_text())
    except OSError:
        return host, ""
    (chosen,) = random.choices(list(said["weights"]), list(said["weights"].values()))
    return chosen, said["mirror"]


def ask(host: str, path: str, body: bytes, seen: Seen, stop: Path, *, keep: bool, pause: float) -> None:
    """Ask until it is time to stop."""
    connections: dict[str, http.client.HTTPConnection] = {}

    def send(to: str) -> http.client.HTTPResponse:
        connection = connections.setdefault(to, http.client.HTTPConnection(to, timeout=TIMEOUT_SECONDS))
        connection.request("POST", path, body, {"content-type": "application/json"})
        return connection.getresponse()

    while not stop.exists():
        chosen, mirror = route(host, Path(f"{stop}.routes"))
        try:
            answer = send(chosen)
            seen.take(answer.status, answer.read())
            seen.hosts[chosen] += 1
        except (OSError, http.client.HTTPException) as error:
            seen.fail(error)
            connections.pop(chosen).close()
        if mirror:
            try:
                answer = send(mirror)
                answer.read()
                seen.copies[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                seen.copies[type(error).__name__] += 1
                connections.pop(mirror).close()
        if not keep:
            for connection in connections.values():
                connection.close()
        time.sleep(pause)
    for connection in connections.values():
        connection.close()


def main(host: str, path: str, stop: str, body: str, pause: str = "0.02") -> None:
    """Ask from several threads, each with so many seconds between its requests, and print what came back."""
    seen = Seen()
    threads = [
        threading.Thread(
            target=ask,
            args=(host, path, Path(body).read_bytes(), seen, Path(stop)),
            kwargs={"keep": number % 2 == 0, "pause": float(pause)},
        )
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    progress = Path(f"{stop}.progress")
    with contextlib.suppress(KeyboardInterrupt):
        for thread in threads:
            while thread.is_alive():
                so_far = {"answers": seen.statuses[http.client.OK], "failures": len(seen.failures)}
                written = progress.with_suffix(".new")
                written.write_text(json.dumps(so_far))
                written.rename(progress)
                thread.join(LOOK_SECONDS)
    print(
        json.dumps(
            {
                "statuses": dict(seen.statuses),
                "failures": seen.failures,
                "bundles": seen.bundles,
                "changes": seen.changes,
                "predictions": seen.predictions,
                "hosts": dict(seen.hosts),
                "copies": dict(seen.copies),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
