"""The description of the REST API, made from the table that requests are routed by, and its page.

The page is HTML that is whole in itself: it fetches nothing, so that it works where there is no way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from typing import Any

from seatrial.server.routes import MODEL, Route

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.4rem;border-bottom:1px solid #ccc}"
    "code{font-family:ui-monospace,monospace}"
)


def describe_api(routes: Sequence[Route], model: str) -> dict[str, Any]:
    """Return the API's description as OpenAPI 3.1.

    Args:
        routes: All that the server answers.
        model: The model's name, which stands in the paths.
    """
    paths: dict[str, Any] = {}
    for route in routes:
        for path in route.paths:
            paths[path.replace(MODEL, model)] = {
                method.lower(): _operation(route, method, path)
                for method in route.methods
                if method != "HEAD"
            }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Seatrial: {model}", "version": version("seatrial")},
        "paths": paths,
    }


def _operation(route: Route, method: str, path: str) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{method.lower()}{path.replace('/', '_').replace(MODEL, 'model')}",
        "responses": {
            "200": {"description": route.summary},
            "default": {"description": "What is wrong, and what would be right", "content": content},
        },
    }
    if method == "POST":
        taken = dict(content)
        if route.form:
            taken["application/x-www-form-urlencoded"] = {
                "schema": {"type": "object", "properties": {"json": {"type": "string"}}}
            }
        if route.tensors:
            taken["application/octet-stream"] = {}
        operation["requestBody"] = {"required": True, "content": taken}
    return operation


def render_page(routes: Sequence[Route], model: str) -> bytes:
    """Return the page that lists what the server answers.

    Args:
        routes: All that the server answers.
        model: The model's name.
    """
    rows = "".join(
        f"<tr><td><code>{escape(route.methods[0])} "
        f"{'<br>'.join(escape(path.replace(MODEL, model)) for path in route.paths)}</code></td>"
        f"<td>{escape(route.summary)}</td></tr>"
        for route in routes
    )
    title = escape(f"Seatrial: {model}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f'<h1>{title}</h1><p>The same for programs: <a href="/openapi.json">openapi.json</a>. The inputs of '
        f'the model: <a href="/v2/models/{escape(model)}">its metadata</a>.</p>'
        f"<table><tr><th>Request</th><th>Answer</th></tr>{rows}</table></html>"
    ).encode()
