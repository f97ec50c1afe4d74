"""Stands where kubectl would: ``port-forward`` of a page that, as kubectl's, ends with the connection that fails.

A request of ``/`` is answered and nothing more; one of ``/fail`` ends the process, as kubectl's ends when a connection
through it does. While the file ``away`` is beside the folder's log it finds no pod. Each start is a line of the log.
"""

from __future__ import annotations

import http.server
import os
import sys
from pathlib import Path

FOLDER = Path(os.environ["KUBECTL_FOLDER"])


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/fail":
            os._exit(1)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    with (FOLDER / "log").open("a") as log:
        log.write(f"{os.getpid()}\n")
    if (FOLDER / "away").exists():
        sys.exit("error: no pod of the service runs")
    local, _, remote = sys.argv[-1].partition(":")
    http.server.ThreadingHTTPServer.allow_reuse_address = True
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(local or 0)), _Page) as server:
        print(f"Forwarding from 127.0.0.1:{server.server_port} -> {remote}", flush=True)
        server.serve_forever()


main()
