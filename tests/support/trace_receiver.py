"""Takes OpenTelemetry traces in a pod, and prints each span as a line of JSON: it runs in the server's image."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATH = "/v1/traces"


class Receiver(BaseHTTPRequestHandler):
    """OTLP over HTTP; any path but that of traces is not there."""

    def do_POST(self) -> None:
        """Print the spans of a message, and say that they were taken."""
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.path != PATH:
            self.send_error(404)
            return
        for resource in ExportTraceServiceRequest.FromString(content).resource_spans:
            told = {one.key: one.value.string_value for one in resource.resource.attributes}
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                found = {
                    "service": told["service.name"],
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                }
                print(json.dumps(found), flush=True)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of requests: standard output is for spans."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(sys.argv[1])), Receiver).serve_forever()
