"""What a contract may hold, key by key, with the meaning and the default of each.

The field descriptions here are the source of ``docs/reference/contract.md``. Unknown keys are
refused at every level, because a mistyped key that is silently ignored is a gate that never ran.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,47}$"
"""Names of models, tables, candidates and environments: they become folders, keys and labels."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=36_500)
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])")


def parse_duration(value: Any) -> timedelta:
    """Read a duration such as ``28d``, ``6h`` or ``30m``.

    Raises:
        ValueError: if the text is not a whole number followed by s, m, h, d or w, or more than a century.
    """
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError("must be a whole number and a unit (s, m, h, d or w), such as 28d or 6h")
    length = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if length > LONGEST:
        raise ValueError(f"must be at most {format_duration(LONGEST)}")
    return length


def format_duration(value: timedelta) -> str:
    """Write a duration in its largest whole unit; ``parse_duration`` reads it back the same."""
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]
"""A length of time, written as ``28d``, ``6h`` or ``30m``."""


def _span(value: Any) -> Any:
    try:
        return parse_duration(value)
    except ValueError:
        if isinstance(value, float) and 0 < value < 1:
            return value
    raise ValueError("must be a length of time, such as 28d, or a share of the rows between 0 and 1")


Span = Annotated[
    timedelta | float,
    BeforeValidator(_span, json_schema_input_type=str | float),
    PlainSerializer(lambda v: format_duration(v) if isinstance(v, timedelta) else v),
]
"""A length of time, or a share (between 0 and 1) of the rows in their order."""

ColumnType = Literal["string", "integer", "number", "boolean", "time"]
Share = Annotated[float, Field(ge=0, le=1)]
Metric = Literal["roc_auc", "average_precision", "brier_score", "cost_per_row"]


NULL_VALUES = ["", "NA", "NaN", "null"]
RESERVED = frozenset({"_at", "_batch", "_key", "_known_at", "_n", "_problems", "_reasons", "_row", "_sum"})
"""Columns of our own beside those of a table."""


class Section(BaseModel):
    """Base of every section: closed, immutable, and strict (the text ``yes`` is no boolean)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FileSource(Section):
    """Rows from CSV or Parquet files."""

    kind: Literal["file"] = Field(description="`file`: CSV (also zipped) or Parquet files.")
    path: str = Field(min_length=1, description="File or glob, relative to the contract's folder.")
    separator: str = Field(",", min_length=1, max_length=1, description="Separator of a CSV file.")
    null_values: list[str] = Field(NULL_VALUES, description="Texts of a CSV file that mean missing.")


class PackageSource(Section):
    """Rows from a CSV file (also zipped) that an installed Python package ships."""

    kind: Literal["package"] = Field(description="`package`: a file that a Python package ships.")
    package: str = Field(min_length=1, description="Name of the distribution; it is not imported.")
    path: str = Field(min_length=1, description="Path of the file within the package.")
    separator: str = Field(",", min_length=1, max_length=1, description="Separator of a CSV file.")
    null_values: list[str] = Field(NULL_VALUES, description="Texts that mean missing.")


Source = Annotated[FileSource | PackageSource, Field(discriminator="kind")]


class Column(Section):
    """What values a column may have. A row that breaks a rule goes to quarantine."""

    type: ColumnType = Field(description="Type of the values; `time` is an instant in UTC.")
    required: bool = Field(False, description="Whether a missing value is a broken rule.")
    minimum: float | None = Field(None, description="Smallest value (inclusive).")
    maximum: float | None = Field(None, description="Largest value (inclusive).")
    allowed: list[str] | None = Field(None, description="The only texts that are allowed.")
    pattern: str | None = Field(None, description="Regular expression that a text must match.")
    missing_share: Share = Field(1.0, description="Largest share of missing values in a batch.")
    private: Literal["hash", "drop"] | None = Field(
        None,
        description="What the feedback log has of a request's value: `hash` its keyed hash, `drop` nothing. "
        "Without it: the value.",
    )

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        import polars as pl  # The data tests match with it, so it decides what a pattern is.

        try:
            pl.select(pl.lit("").str.contains(pl.lit(pattern)))
        except pl.exceptions.ComputeError as error:
            what = next((line for line in str(error).splitlines() if line.startswith("error: ")), "error")
            raise ValueError(f"must be a regular expression ({what.removeprefix('error: ')})") from None
        return pattern

    @model_validator(mode="after")
    def _rules_fit_type(self) -> Column:
        for rule, types in _RULES.items():
            if getattr(self, rule) is not None and self.type not in types:
                raise ValueError(f"{rule} is a rule for columns of type {' or '.join(types)} only")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum must not be above maximum ({self.minimum:g} > {self.maximum:g})")
        return self


_RULES = {
    "minimum": ("integer", "number"),
    "maximum": ("integer", "number"),
    "allowed": ("string",),
    "pattern": ("string",),
}


class Table(Section):
    """One table that the model learns from."""

    source: Source = Field(description="Where its rows come from.")
    prepare: str | None = Field(
        None,
        description="Function in the model's `prepare.py` that turns the source's rows into the table's.",
    )
    key: list[str] = Field(min_length=1, description="Columns that name a row; no two rows share them.")
    time: str | None = Field(
        None,
        description="Column that says when a row happened. Without it the table arrives in one batch.",
    )
    columns: dict[str, Column] = Field(
        min_length=1, description="Its columns by name, each with its type and rules; others are left out."
    )
    quarantine_share: Share = Field(
        0.01, description="Largest share of a batch's rows that may go to quarantine; more stops the run."
    )
    minimum_rows: int = Field(1, ge=1, description="Fewest rows that a batch may have.")
    freshness: Duration | None = Field(
        None, description="How old a batch's newest row may be when a run starts."
    )
    ahead: Duration = Field(
        timedelta(0),
        description="How far after a run a row's time may lie, such as a forecast's; later rows go to quarantine.",
    )


class Label(Section):
    """What the model learns to say."""

    column: str = Field(description="Column of the prediction's table: boolean, or integer 0 and 1.")
    time: str | None = Field(
        None,
        description="Column that says when the label became known. Without it: at the row's own time.",
    )


class Prediction(Section):
    """What a prediction is made for, and what is known then."""

    table: Name = Field(description="Table whose rows are predicted.")
    inputs: list[str] = Field(
        min_length=1, description="Its columns that a request brings; no other is known at that time."
    )


class Features(Section):
    """Which features the model uses."""

    use: list[str] | None = Field(
        None, description="Names of the features in `features.py` to use; all without it."
    )


class Split(Section):
    """How rows are divided: always by time, never at random."""

    validation: Span = Field(description="The span before the test's, for tuning and choosing.")
    test: Span = Field(description="The last span, for evaluation and gates; never seen in training.")


class Search(Section):
    """The range of one hyper-parameter: bounds, or choices."""

    low: float | None = Field(None, description="Smallest value (inclusive).")
    high: float | None = Field(None, description="Largest value (inclusive).")
    log: bool = Field(False, description="Whether to search on a logarithmic scale.")
    integer: bool = Field(False, description="Whether values are whole numbers.")
    choices: list[str | float | int | bool] | None = Field(None, description="The only values to try.")

    @model_validator(mode="after")
    def _bounds_or_choices(self) -> Search:
        bounds = self.low is not None and self.high is not None
        if bounds == (self.choices is not None):
            raise ValueError("needs either low and high, or choices")
        if bounds and self.low >= self.high:  # type: ignore[operator]
            raise ValueError(f"low must be below high. Got low={self.low}, high={self.high}")
        return self


class Candidate(Section):
    """One kind of model that is tried."""

    name: Name = Field(description="What the candidate is called in reports.")
    estimator: str = Field(
        pattern=r"^(sklearn\.[A-Za-z_.]+|[a-z_]+\.py:[A-Za-z_]+)$",
        description="A scikit-learn class (`sklearn.linear_model.LogisticRegression`) or a function of the "
        "model's own (`estimators.py:make`) that takes the parameters and returns an estimator.",
    )
    complexity: int = Field(ge=1, description="Rank by simplicity: within the margin the lowest rank wins.")
    encoding: Literal["one_hot", "ordinal"] = Field(
        description="`one_hot`: categories as columns, numbers filled and scaled, for linear models. "
        "`ordinal`: categories as numbers, missing numbers left as they are, for trees."
    )
    parameters: dict[str, Any] = Field({}, description="Fixed parameters of the estimator.")
    search: dict[str, Search] = Field({}, description="Parameters to tune.")


class Tuning(Section):
    """How hyper-parameters are searched. The budget is in trials, so that a run can be repeated."""

    trials: int = Field(8, ge=1, le=1000, description="Trials for each candidate.")
    sample_rows: int = Field(50_000, ge=100, description="Newest training rows that a trial fits on.")
    seed: int = Field(0, ge=0, description="Seed of everything random in a run.")


class Selection(Section):
    """Which candidate wins."""

    metric: Metric = Field("average_precision", description="Measured on the validation rows.")
    margin: float = Field(0.0, ge=0, description="A simpler candidate within this of the best wins.")


class Costs(Section):
    """What a mistake costs, in a unit of the user's own."""

    missed: float = Field(gt=0, description="Cost of a positive that was not flagged.")
    false_alarm: float = Field(gt=0, description="Cost of a negative that was flagged.")


class MinimumQualityGate(Section):
    """The lower end of the metric's 95% interval must reach the bound."""

    metric: Literal["roc_auc", "average_precision"] = Field(description="Measured on the test rows.")
    minimum: Share = Field(description="Lowest lower end of the interval that passes (inclusive).")


class ChampionGate(Section):
    """Must not be worse than the model that serves now, beyond the noise, on the same rows."""

    metric: Metric = Field(description="Measured for both on the same test rows.")
    tolerance: float = Field(ge=0, description="A loss that is accepted even if it is no noise.")


class WorstSliceGate(Section):
    """The worst slice that has enough rows must reach the bound."""

    metric: Literal["roc_auc", "average_precision"] = Field(description="Measured in each slice.")
    minimum: Share = Field(description="Lowest value that passes (inclusive).")
    minimum_rows: int = Field(500, ge=1, description="Smaller slices are shown, not judged.")


class CalibrationGate(Section):
    """The expected calibration error must stay below the bound."""

    maximum: Share = Field(description="Largest expected calibration error that passes (inclusive).")


class BusinessCostGate(Section):
    """Cost against doing nothing (flagging no row, or all rows, whichever is cheaper)."""

    maximum_ratio: float = Field(gt=0, description="1 means: as dear as doing nothing.")


class LatencyGate(Section):
    """Time of a single prediction from features to answer, 99th percentile."""

    maximum_milliseconds: float = Field(gt=0, description="Longest time that passes (inclusive).")


class BundleSizeGate(Section):
    """Size of the model's files."""

    maximum_megabytes: float = Field(gt=0, description="Largest size that passes, in 10^6 bytes.")


class ParityGate(Section):
    """The ONNX and the scikit-learn model must answer the same."""

    maximum_difference: float = Field(gt=0, description="Largest difference of a probability.")
    rows: int = Field(10_000, ge=1, description="Newest test rows that are compared (all, if fewer).")


class TrainingTimeGate(Section):
    """Wall-clock time of training, tuning included."""

    maximum_minutes: float = Field(gt=0, description="Longest time that passes (inclusive).")


class TrainingEnergyGate(Section):
    """Energy that training took, tuning included, as measured or estimated by codecarbon."""

    maximum_watt_hours: float = Field(gt=0, description="Most energy that passes (inclusive).")


class Gates(Section):
    """What a model must pass before it may serve.

    An optional gate that is absent is not checked; the data tests always are.
    """

    minimum_quality: MinimumQualityGate
    champion: ChampionGate | None = None
    worst_slice: WorstSliceGate | None = None
    calibration: CalibrationGate | None = None
    business_cost: BusinessCostGate | None = None
    latency: LatencyGate | None = None
    bundle_size: BundleSizeGate | None = None
    parity: ParityGate
    training_time: TrainingTimeGate | None = None
    training_energy: TrainingEnergyGate | None = None


class LoadGoal(Section):
    """What a server must bear, where an environment demands a load test."""

    requests_per_second: int = Field(
        ge=1, le=10_000, description="Requests of one row that arrive in a second."
    )
    p99_milliseconds: float = Field(
        gt=0, description="Time within which 99 of 100 are answered, counted from when each was due."
    )
    maximum_error_share: Share = Field(0.0, description="Largest share that is not answered with 200.")


class Serving(Section):
    """How the model is served."""

    maximum_request_bytes: int = Field(1_000_000, ge=1_000, description="A larger request is refused.")
    maximum_rows: int = Field(10_000, ge=1, description="Most rows in one request.")
    maximum_waiting: int = Field(
        1_000,
        ge=1,
        description="Most requests that wait for a prediction at once; more are refused with 429.",
    )
    durability: Literal["always", "interval"] = Field(
        "always",
        description="Whether the disk has a prediction before its answer leaves, or within an interval.",
    )
    sync_milliseconds: int = Field(
        100,
        ge=1,
        le=60_000,
        description="That interval: what a loss of power may cost. A kill costs nothing.",
    )
    load: LoadGoal | None = Field(None, description="What a server must bear.")


class Feedback(Section):
    """What is kept of predictions and outcomes, and for how long."""

    maximum_log_bytes: int = Field(
        1_000_000_000,
        ge=100_000,
        description="Most bytes that a server's log may hold on its disk, while the tables cannot be written; "
        "the oldest records stay.",
    )
    when_full: Literal["refuse", "shed"] = Field(
        "refuse",
        description="When that many are there, or the disk takes no more: `refuse` answers 503, `shed` answers "
        "predictions without recording them, and counts them. Outcomes are refused.",
    )
    retention: Duration | None = Field(
        None,
        description="How long predictions and their outcomes are kept, from the answer on; `seatrial feedback "
        "retain` deletes what is older. Without it: for good.",
    )
    versions: Duration = Field(
        timedelta(days=7),
        description="How long an earlier version of the tables stays readable; `seatrial feedback compact` deletes "
        "the files of older ones.",
    )


class Monitoring(Section):
    """What is watched in live traffic, against the bundle's own baseline."""

    minimum_rows: int = Field(500, ge=1, description="A smaller window is not judged.")
    psi: float = Field(0.2, gt=0, description="Population stability index from which a column has drifted.")
    ks: float = Field(
        0.1, gt=0, le=1, description="Kolmogorov-Smirnov distance from which a number has drifted."
    )
    drifted_share: Share = Field(0.3, description="Share of drifted features that fails the verdict.")
    missing_increase: Share = Field(0.1, description="Rise in a feature's missing share that fails.")
    unseen_share: Share = Field(0.05, description="Share of unseen categories in a feature that fails.")
    outlier_share: Share = Field(
        0.05, description="Share of rows with a value outside of the baseline's range that fails."
    )
    quality_drop: float = Field(
        0.05, gt=0, description="Fall of live ROC AUC below the bundle's test figure that fails."
    )
    minimum_outcomes: int = Field(500, ge=1, description="Fewer joined outcomes are not judged.")


class Triggers(Section):
    """What starts a retraining. A rule that is absent never fires."""

    on_drift: bool = Field(True, description="A failed drift verdict.")
    on_quality: bool = Field(True, description="A failed live quality verdict.")
    new_rows: int | None = Field(None, ge=1, description="New labelled rows since the last training.")
    every: Duration | None = Field(None, description="Time since the last training.")
    one_client: bool = Field(
        False,
        description="Whether drift or a fall of quality counts that shows only with one client's predictions. "
        "`true` where one application asks for all of them.",
    )
    cool_down: Duration = Field(timedelta(days=7), description="Shortest time between two retrainings.")
    run_limit: Duration = Field(
        timedelta(hours=6),
        description="Time after which a retraining that has not ended counts as died; the next monitoring takes it up.",
    )


class Guards(Section):
    """What a candidate must keep to while it is rolled out, judged by what servers recorded in each step."""

    maximum_error_share: Share = Field(
        0.01, description="Largest share of the rows that it was asked and did not answer, or not in time."
    )
    minimum_agreement: Share = Field(
        0.9,
        description="Smallest share of the rows that both bundles were asked, and that both flag or neither.",
    )
    maximum_latency_ratio: float = Field(
        3.0,
        gt=0,
        description="Largest ratio of both bundles' 99th percentiles of processor time for the same rows.",
    )
    maximum_probability_shift: Share = Field(
        0.05,
        description="Largest Wasserstein distance between the probabilities that both gave to the same rows.",
    )
    maximum_quality_drop: Share | None = Field(
        None,
        description="Largest fall of live ROC AUC below that of the bundle that serves, on the same rows. Only where "
        "outcomes arrive within the roll-out: it waits for `minimum_outcomes`.",
    )
    minimum_outcomes: int = Field(500, ge=1, description="Fewest outcomes by which quality is judged.")


class Environment(Section):
    """One place that serves."""

    promotion: Literal["automatic", "manual"] = Field(
        description="`automatic`: a run whose gates pass is served there. `manual`: a person says so."
    )
    approvals: int = Field(
        0,
        ge=0,
        le=9,
        description="Fewest persons who must approve a bundle, where the environment itself asks for fewer.",
    )
    ask_for: Duration | None = Field(
        None,
        description="How long a run that passed its gates waits there for a person's answer, `seatrial approve RUN`; "
        "no answer is a no. Only with `promotion: manual` and no `approvals`, which want a signature. Without it a run "
        "does not ask.",
    )
    guards: Guards | None = Field(
        None, description="Bounds for this model's roll-outs there, instead of the environment's own."
    )

    @model_validator(mode="after")
    def _asks_where_a_word_is_enough(self) -> Environment:
        if self.ask_for is not None and (self.promotion != "manual" or self.approvals):
            raise ValueError("ask_for needs promotion: manual, and no approvals")
        return self


class ContinuousIntegration(Section):
    """How a change of the model is tried before it is merged."""

    as_of: str = Field(
        "",
        description="Instant of the sample run of `seatrial ci`: the end of a period, such as `2013-03`, or an ISO "
        "8601 time. An early one means fewer rows; without it, now.",
    )


class Contract(Section):
    """The contract of one model."""

    version: Literal[1] = Field(description="Version of the contract's format.")
    name: Name = Field(description="The model's name, the same as its folder's.")
    description: str = Field(min_length=1, description="What the model says, about what, and when.")
    owner: str = Field(min_length=1, description="Who answers for the model.")
    tables: dict[Name, Table] = Field(min_length=1, description="The tables that the model learns from.")
    prediction: Prediction = Field(description="What a prediction is made for, and what is known then.")
    label: Label = Field(description="What the model learns to say.")
    features: Features = Field(Features(use=None), description="Which features the model uses.")
    split: Split = Field(description="How rows are divided: always by time, never at random.")
    candidates: list[Candidate] = Field(min_length=1, description="The kinds of models that are tried.")
    tuning: Tuning = Field(Tuning(), description="How hyper-parameters are searched.")
    selection: Selection = Field(Selection(), description="Which candidate wins.")
    costs: Costs = Field(description="What a mistake costs, in a unit of the user's own.")
    slices: list[str] = Field([], description="Inputs or features by whose values quality is shown.")
    gates: Gates = Field(description="What a model must pass before it may serve.")
    serving: Serving = Field(Serving(load=None), description="How the model is served.")
    feedback: Feedback = Field(
        Feedback(), description="What is kept of predictions and outcomes, and for how long."
    )
    monitoring: Monitoring = Field(
        Monitoring(), description="What is watched in live traffic, against the bundle's own baseline."
    )
    triggers: Triggers = Field(Triggers(new_rows=None, every=None), description="What starts a retraining.")
    environments: dict[Name, Environment] = Field(
        {
            name: Environment(promotion="automatic", approvals=0, ask_for=None, guards=None)
            for name in ("local", "test")
        },
        min_length=1,
        description="Where the model is served.",
    )
    continuous_integration: ContinuousIntegration = Field(
        ContinuousIntegration(), description="How a change of the model is tried before it is merged."
    )
