"""The new model's README: what was decided and why, and what to do next."""

from __future__ import annotations

from datetime import datetime
from string import Template
from typing import Any

import orjson

from seatrial.init_model.columns import FoundColumn
from seatrial.init_model.texts import Proposal

_DATATYPES = {"string": "BYTES", "integer": "INT64", "number": "FP64", "boolean": "BOOL", "time": "BYTES"}


def readme_md(proposal: Proposal) -> str:
    """Return the text of the README."""
    roles = proposal.roles
    rows = [(roles.label.name, f"the label: whether it is {roles.positive}, not {roles.negative}")]
    if roles.time:
        rows.append((roles.time.name, "when a row happened"))
    if roles.row_number:
        rows.append((roles.row_number, "the key, added by prepare.py: no column names a row"))
    rows += [(column.name, f"a feature, {column.type}") for column in roles.features]
    rows += [(name, f"{reason}: in a request, no feature") for name, reason in roles.inputs_only.items()]
    rows += [(name, f"{reason}: not in a request") for name, reason in roles.table_only.items()]
    rows += [(name, f"{reason}: not in the contract") for name, reason in roles.left_out.items()]
    return README.substitute(
        name=proposal.name,
        label=_cell(roles.label.name),
        path=_cell(proposal.source.path),
        prepare="| `prepare.py` | makes the rows of the file the rows of the contract |\n"
        if proposal.needs_prepare
        else "",
        table="\n".join(f"| {_cell(name)} | {_cell(what)} |" for name, what in rows),
        train=proposal.train,
        body=_request_text(proposal),
    )


def _cell(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    for character, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "\\`")):
        plain = plain.replace(character, shown)
    return plain


def example_request(proposal: Proposal) -> dict[str, Any]:
    """Return a request of one row: the usual value of each feature, and no text or key of a real row."""
    known = {column.name: column for column in proposal.columns}
    return {"inputs": [_tensor(name, known.get(name), proposal) for name in proposal.inputs]}


def _request_text(proposal: Proposal) -> str:
    """The example as JSON, an input a line."""
    lines = [f"  {orjson.dumps(tensor).decode()}" for tensor in example_request(proposal)["inputs"]]
    return '{"inputs": [\n' + ",\n".join(lines) + "\n]}"


def _tensor(name: str, column: FoundColumn | None, proposal: Proposal) -> dict[str, Any]:
    kind = column.type if column and column.type else "integer"
    is_feature = any(feature is column for feature in proposal.roles.features)
    value = _usual(column) if column and (is_feature or kind == "time") else _invented(kind)
    return {"name": name, "shape": [1], "datatype": _DATATYPES[kind], "data": [value]}


def _invented(kind: str) -> Any:
    return "example-1" if kind == "string" else 1_000_000


def _usual(column: FoundColumn) -> Any:
    values = column.values.drop_nulls()
    newest = values.max()
    if isinstance(newest, datetime):
        return f"{newest:%Y-%m-%dT%H:%M:%SZ}"
    if column.type in ("integer", "number"):
        return values.sort()[values.len() // 2]
    return values.mode().sort()[0]


README = Template("""\
# $name

Says whether "$label" will be yes. Made by `seatrial init`; all of it is yours to change.

| file | what it says |
| --- | --- |
| `model.yaml` | the contract: data, label, candidates, gates, what is watched, when to train again |
| `features.py` | the features, once for training and serving |
$prepare
The data are read from `$path`, relative to this folder. They are not copied: rows that are added to
the file are taken in when you train again.

## What each column is for

Decided from the data alone. Read it with one question in mind: **is the column known at the moment
when a prediction is made?** If not, take it out of `prediction.inputs` and of `features.py`.

| column | what for |
| --- | --- |
$table

## Commands

```
seatrial check $name
$train
seatrial report $name
seatrial serve $name
```

## A request

With the server running, save this as `request.json`:

```json
$body
```

```
curl -s http://127.0.0.1:8080/v2/models/$name/infer -H 'content-type: application/json' -d @request.json
```

The answer has a `prediction_id`. When the outcome is known, say so by that id:

```
curl -s http://127.0.0.1:8080/v2/models/$name/feedback -H 'content-type: application/json' \\
  -d '{"prediction_id": "THE ID", "value": 1}'
```
""")
