"""The texts of a new model's files.

Names of columns are free text: they go into YAML and Python in double quotes, with the escapes that
both have in common, so no name can end its quotes or begin a line of its own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from string import Template

from seatrial.contract.schema import NULL_VALUES, FileSource, format_duration
from seatrial.init_model.choices import Roles
from seatrial.init_model.columns import FoundColumn

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS_OF_YAML = frozenset(["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"])
_SHOWN_VALUES = 6
_SHOWN_CHARACTERS = 24
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


@dataclass(frozen=True)
class Proposal:
    """All that a new model's files say.

    Attributes:
        name: The model's name, which its table bears too.
        source: The data file; its path is relative to the model's folder.
        columns: The columns of the contract's table that come from the file.
        roles: The part that each plays.
        spans: The lengths of the validation's and the test's span, or their shares of the rows.
        shuffled: Whether ``prepare.py`` brings the rows into a random order.
        quarantine_share: Largest share of rows that may be set aside.
        as_of: The month that training must be told to run at the end of; empty: none.
    """

    name: str
    source: FileSource
    columns: list[FoundColumn]
    roles: Roles
    spans: tuple[timedelta | float, timedelta | float] = (0.2, 0.2)
    shuffled: bool = False
    quarantine_share: float = 0.01
    as_of: str = ""

    @property
    def train(self) -> str:
        """The command that trains the model."""
        return f"seatrial train {self.name}" + (f" --as-of {self.as_of}" if self.as_of else "")

    @property
    def decimal_commas(self) -> list[str]:
        """Columns whose numbers are written as ``3,14``."""
        return [column.name for column in self.columns if column.decimal_comma]

    @property
    def maps_label(self) -> bool:
        """Whether the label's values are none that a contract reads as yes and no by itself."""
        label = self.roles.label
        return label.type != "boolean" and not (label.type == "integer" and label.bounds() == (0, 1))

    @property
    def needs_prepare(self) -> bool:
        """Whether the model needs a ``prepare.py``."""
        return bool(self.maps_label or self.decimal_commas or self.roles.row_number or self.shuffled)

    @property
    def inputs(self) -> list[str]:
        """Columns of a request: the key first, then the time, then the others in the file's order."""
        roles = self.roles
        first = [*roles.key, *([roles.time.name] if roles.time else [])]
        known = {*roles.inputs_only, *(column.name for column in roles.features)}
        return list(dict.fromkeys([*first, *(c.name for c in self.columns if c.name in known)]))


def quoted(text: str) -> str:
    """Return a text in double quotes, the same in YAML and in Python."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 -- the three escapes' sizes


def yaml_name(text: str) -> str:
    """Return a text as YAML: without quotes where it is a plain word."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS_OF_YAML
    return text if plain else quoted(text)


def _yaml_list(names: list[str]) -> str:
    return f"[{', '.join(yaml_name(name) for name in names)}]"


def _shown(value: object) -> str:
    match value:
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case float():
            return f"{value:g}"
    text = str(value)
    return quoted(text[:_SHOWN_CHARACTERS])[1:-1]


def _in_a_comment(column: FoundColumn) -> str:
    """What is in a column, in a few words."""
    missing = f", {column.missing / max(column.values.len(), 1):.1%} missing" if column.missing else ""
    if column.type in ("integer", "number", "time"):
        low, high = column.bounds()
        return f"{_shown(low)} to {_shown(high)}{missing}"
    if column.type == "string" and column.distinct <= _SHOWN_VALUES:
        values = sorted(column.values.drop_nulls().unique())
        return f"{', '.join(_shown(value) for value in values)}{missing}"
    return f"{column.distinct:,} different{missing}"


def _column_lines(proposal: Proposal) -> str:
    roles, lines = proposal.roles, []
    if roles.row_number:
        lines.append(f"{roles.row_number}: {{type: integer, required: true}}  # added by prepare.py")
    for column in proposal.columns:
        rule, comment = f"type: {column.type}", _in_a_comment(column)
        if column is roles.label:
            of_numbers = column.type == "integer" and not proposal.maps_label
            rule = "type: integer, minimum: 0, maximum: 1" if of_numbers else "type: boolean"
            comment = f"the label: whether it is {_shown(roles.positive)}, not {_shown(roles.negative)}"
        elif column is roles.time or column.name in roles.key:
            rule += ", required: true"
        reason = roles.table_only.get(column.name)
        comment += f"; not for predictions: it {_comment(reason)}" if reason else ""
        lines.append(f"{yaml_name(column.name)}: {{{rule}}}  # {comment}")
    return "\n".join(f"      {line}" for line in lines)


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _span(span: timedelta | float) -> str:
    return format_duration(span) if isinstance(span, timedelta) else f"{span:g}"


def _source(source: FileSource) -> str:
    more = f", separator: {quoted(source.separator)}" if source.separator != "," else ""
    if source.null_values != NULL_VALUES:
        more += f", null_values: [{', '.join(quoted(text) for text in source.null_values)}]"
    return f"{{kind: file, path: {quoted(source.path)}{more}}}"


def model_yaml(proposal: Proposal) -> str:
    """Return the contract's text."""
    roles = proposal.roles
    rate = _rate(roles)
    prepare = f"    prepare: {proposal.name}  # the function in prepare.py that the rows go through first\n"
    time = (
        f"    time: {yaml_name(roles.time.name)}  # when a row happened; data arrive month by month\n"
        if roles.time
        else ""
    )
    slices = f"\nslices: {_yaml_list(roles.slices)}  # quality is shown for each of their values\n"
    return MODEL_YAML.substitute(
        name=proposal.name,
        label_shown=_shown(roles.label.name),
        description=quoted(f"Says whether {roles.label.name} is {roles.positive}, before that is known."),
        source=_source(proposal.source),
        prepare=prepare if proposal.needs_prepare else "",
        key=_yaml_list(roles.key),
        time=time,
        quarantine=f"{proposal.quarantine_share:g}",
        columns=_column_lines(proposal),
        inputs=_yaml_list(proposal.inputs),
        label=yaml_name(roles.label.name),
        label_time=LABEL_TIME if roles.time else "",
        order="time"
        if roles.time
        else "the order of the rows"
        if not proposal.shuffled
        else "the order of prepare.py",
        validation=_span(proposal.spans[0]),
        test=_span(proposal.spans[1]),
        rate=f"{rate:.1%}",
        missed=max(1, round((1 - rate) / rate)),
        slices=slices if roles.slices else "",
    )


def _rate(roles: Roles) -> float:
    """The share of yes among the labelled rows."""
    label = roles.label
    if label.type == "string":
        yes = label.texts.drop_nulls().str.strip_chars() == roles.positive
    else:
        yes = label.values.drop_nulls() == label.values.max()
    return float(yes.to_numpy().mean())


def features_py(proposal: Proposal) -> str:
    """Return the text of the feature file."""
    roles = proposal.roles
    lines = [f"        {quoted(c.name)}: pl.col({quoted(c.name)})," for c in roles.features]
    time = quoted(roles.time.name) if roles.time else ""
    first = next((n for n in roles.inputs_only if n not in roles.key), "")
    by = next((c.name for c in roles.features if c.type == "string"), first or roles.key[0])
    return FEATURES_PY.substitute(
        label=_comment(roles.label.name).replace('"', "'").replace("\\", "/"),
        hint=TIMED_HINT.substitute(
            table=proposal.name, by=quoted(by), time=time, value=quoted(roles.label.name)
        )
        if roles.time
        else UNTIMED_HINT,
        known_at=f"    known_at=pl.col({time}),\n" if roles.time else "",
        expressions="\n".join(lines),
    )


def prepare_py(proposal: Proposal) -> str:
    """Return the text of the file that prepares the rows."""
    roles, columns = proposal.roles, []
    if proposal.maps_label:
        label = quoted(roles.label.name)
        mapping = f'{{{quoted(roles.positive)}: "true", {quoted(roles.negative)}: "false"}}'
        columns += [
            "        # A text that is neither stays as it is, and the data tests set its row aside.",
            f"        pl.col({label}).cast(pl.String).str.strip_chars().replace({mapping}),",
        ]
    columns += [
        f'        pl.col({quoted(name)}).str.replace(",", ".", literal=True),  # 3,14 is 3.14'
        for name in proposal.decimal_commas
    ]
    steps = ["    rows = raw"]
    if columns:
        steps = ["    rows = raw.with_columns(", *columns, "    )"]
    if roles.row_number:
        steps += [
            "    # No column of the file names a row. New rows must come at the file's end, or a number would",
            "    # mean another row; a column that names the row is better: then put it under key in model.yaml.",
            f"    rows = rows.with_row_index({quoted(roles.row_number)}, offset=1)",
        ]
    if proposal.shuffled:
        steps += [
            "    # The file is sorted by the label, so its last rows would not be like its first ones.",
            "    rows = rows.sample(fraction=1, shuffle=True, seed=0)",
        ]
    return PREPARE_PY.substitute(name=proposal.name, steps="\n".join([*steps, "    return rows"]))


def days(length: timedelta) -> timedelta:
    """Return a length of time in whole days, or whole hours if it is shorter than two days; at least one hour."""
    unit = timedelta(days=1) if length >= timedelta(days=2) else timedelta(hours=1)
    return unit * max(1, math.ceil(length / unit))


LABEL_TIME = """\
  # If the label becomes known later than the row, name the column that says when, so that no model
  # learns from what nobody knew then:
  # time: COLUMN
"""
MODEL_YAML = Template("""\
# What this model learns from, and what it must pass before it serves. Written by `seatrial init`
# from the data; it is yours now. Each key is explained in docs/reference/contract.md.
version: 1
name: $name
description: $description
owner: you@example.com  # who answers for the model

tables:
  $name:
    source: $source  # the path is relative to this folder
$prepare    key: $key
$time    quarantine_share: $quarantine  # if more of the rows break a rule, the run stops
    columns:  # add rules: minimum, maximum, allowed, pattern, required, missing_share
$columns

# A request brings these columns. All of them must be known when a prediction is made: if one is
# not, take it out here and in features.py.
prediction:
  table: $name
  inputs: $inputs

label:
  column: $label
$label_time
# By $order: the model is tuned on the span before the last, and judged on the last.
split:
  validation: $validation
  test: $test

# The simplest candidate within the margin of the best is taken.
candidates:
  - name: logistic_regression
    estimator: sklearn.linear_model.LogisticRegression
    complexity: 1
    encoding: one_hot
    parameters: {max_iter: 1000}
    search:
      C: {low: 0.001, high: 10.0, log: true}
  - name: gradient_boosted_trees
    estimator: sklearn.ensemble.HistGradientBoostingClassifier
    complexity: 2
    encoding: ordinal
    parameters: {max_iter: 100, early_stopping: false}
    search:
      learning_rate: {low: 0.02, high: 0.2, log: true}
      max_leaf_nodes: {low: 4, high: 32, integer: true}
      l2_regularization: {low: 0.1, high: 30.0, log: true}

tuning:
  trials: 8  # for each candidate

selection:
  metric: average_precision
  margin: 0.01

# What a mistake costs, in any unit. $rate of the rows are yes; as long as nobody said better, a
# missed one costs as much as flagging all that are no for it.
costs:
  missed: $missed
  false_alarm: 1
$slices
# Lenient, to begin with: the model must be better than a coin, and no dearer than doing nothing.
gates:
  minimum_quality: {metric: roc_auc, minimum: 0.5}  # the lower end of the 95% interval
  champion: {metric: average_precision, tolerance: 0.02}
  calibration: {maximum: 0.25}
  business_cost: {maximum_ratio: 1.0}
  latency: {maximum_milliseconds: 100}
  bundle_size: {maximum_megabytes: 50}
  parity: {maximum_difference: 0.001}
  training_time: {maximum_minutes: 30}
  # worst_slice: {metric: roc_auc, minimum: 0.5, minimum_rows: 200}  # needs slices of that many test rows

monitoring:
  minimum_rows: 200  # fewer predictions are not judged
  minimum_outcomes: 100

# When to train again, beside drift and a fall of live quality.
triggers:
  cool_down: 7d
  # one_client: true  # where one application asks for all predictions, so that its drift alone counts
  # new_rows: 1000
  # every: 30d

environments:
  local: {promotion: automatic}  # a model that passes its gates is served
  test: {promotion: automatic}  # the same on a cluster
""")
FEATURES_PY = Template('''\
"""What is known when a prediction of "$label" is made.

Training computes these for all rows, serving for one request, from the same definitions.
"""

import polars as pl

from seatrial.features import Features

$hint
FEATURES = Features(
$known_at    expressions={
$expressions
    },
)
''')
UNTIMED_HINT = """\
# An expression is any of polars over the request's columns, such as
#     "ratio": pl.col("a") / pl.col("b"),
# A table that does not change with time is joined by Lookup, as in models/flights/features.py.
"""
TIMED_HINT = Template("""\
# An expression is any of polars over the request's columns, such as
#     "weekday": pl.col($time).dt.weekday(),
#     "hour": pl.col($time).dt.hour(),
# What happened before counts too, as far as it was known by then. Import History or Latest and add,
# before expressions (with the column that says when the label became known: by the row's own time a
# row would count for itself, and give its label away):
#     parts=(
#         History(
#             "before", "$table", by=($by,), time="KNOWN", value=$value, windows=("7d", "28d")
#         ),
#         Latest("TABLE", by=($by,), time="COLUMN", columns={"FEATURE": "COLUMN"}, within="1d"),
#     ),
""")
PREPARE_PY = Template('''\
"""From the rows of the file to the rows of the contract's table.

Every column of a CSV arrives as a text; the contract's types are read from what this returns.
"""

import polars as pl


def $name(raw: pl.DataFrame) -> pl.DataFrame:
    """Return the rows as the contract describes them."""
$steps
''')
