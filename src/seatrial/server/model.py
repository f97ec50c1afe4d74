"""A bundle made ready to answer: its features' index, its ONNX session, and what its tables know.

Everything is made from checked bytes and from tables at one version each; a model never changes
afterwards, but for the outcomes that it learns. A newer bundle, or newer tables, make a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from seatrial.bundle import Bundle, BundleSchema, TrustRoot, load_bundle
from seatrial.contract.schema import Feedback, Serving
from seatrial.errors import BundleError, RequestError, TableError
from seatrial.features import History, OnlineFeatures
from seatrial.feedback.concealing import Concealer, open_concealer
from seatrial.feedback.log import Terms
from seatrial.server.explaining import Explanation, explain_row, read_background
from seatrial.server.quick import QuickReader
from seatrial.sources import TYPES
from seatrial.tables import Tables
from seatrial.workspace import Workspace

_INPUT = "features"
_OUTPUT = "probabilities"


@dataclass(frozen=True)
class Predicted:
    """What a model says about n rows.

    Attributes:
        features: The encoded rows, of shape (n_rows, n_features).
        known_at: The instant that each row is predicted at, in microseconds since 1970.
        probability: Of each row.
        flagged: Whether each row's probability reaches the bundle's threshold.
    """

    features: NDArray[np.float32]
    known_at: list[int | None]
    probability: list[float]
    flagged: list[bool]


@dataclass(frozen=True)
class Change:
    """A row of the prediction's table that has become known, or known better.

    Attributes:
        old: The row as it was learned before, if it was.
        new: The row as it is now.
    """

    old: dict[str, Any] | None
    new: dict[str, Any]


class KnownKeys:
    """The keys of the rows whose label a table knows: 8 bytes a row.

    Args:
        table: The table.
        key: Its key columns.
        label: Its label; a row without one is not known yet.
    """

    def __init__(self, table: pl.LazyFrame, key: tuple[str, ...], label: str) -> None:
        self.of = (key, label)
        self._key = pl.struct(key).hash(seed=0)
        self._hashes = np.sort(
            table.filter(pl.col(label).is_not_null()).select(self._key).collect().to_series().to_numpy()
        )

    def holds(self, keys: pl.DataFrame) -> NDArray[np.bool_]:
        """Return for each row of ``keys`` whether the table has it, of shape (n_rows,)."""
        hashes = keys.select(self._key).to_series().to_numpy()
        places = np.searchsorted(self._hashes, hashes)
        found = np.zeros(len(hashes), dtype=np.bool_)
        inside = places < len(self._hashes)
        found[inside] = self._hashes[places[inside]] == hashes[inside]
        return found


class ServedModel:
    """A bundle that answers.

    Args:
        bundle: The bundle, checked.
        tables: The valid tables that its features read.
        versions: The Delta version of each.
        concealer: Conceals its private fields; None: it has none.
        like: A model whose indexes are taken over where they are of the same parts and table versions.

    Raises:
        BundleError: if its ONNX model does not fit its schema.
        FeatureError: if a table that its features read is missing.
    """

    def __init__(
        self,
        bundle: Bundle,
        tables: dict[str, pl.LazyFrame],
        versions: dict[str, int],
        concealer: Concealer | None = None,
        like: ServedModel | None = None,
    ) -> None:
        self.bundle = bundle
        self.versions = versions
        self.concealer = concealer
        self.schema: BundleSchema = bundle.schema
        self.limits: Serving = bundle.contract.contract.serving
        self.input_names = [column.name for column in self.schema.inputs]
        self.key_places = [self.input_names.index(column) for column in self.schema.key]
        self.feedback: Feedback = bundle.contract.contract.feedback
        self.terms = Terms(
            None if self.limits.durability == "always" else self.limits.sync_milliseconds / 1000,
            self.feedback.maximum_log_bytes,
        )
        """On what terms the log takes what this model has answered."""
        self.answer_head = answer_head(bundle.manifest.model, bundle.digest)
        self.reader = QuickReader(self.schema.inputs, maximum_rows=self.limits.maximum_rows)
        self._types: dict[str, pl.DataType | type[pl.DataType]] = {
            column.name: TYPES[column.type] for column in self.schema.inputs
        }
        unchanged = {name for name in versions if like and like.versions.get(name) == versions[name]}
        self.online: OnlineFeatures = OnlineFeatures(
            bundle.features,
            tables,
            self._types,
            use=self.schema.features.names,
            like=None if like is None else like.online,
            unchanged=unchanged,
        )
        self._takes_plain = self.schema.features.takes_plain(self.online.compute([]))
        self._session = bundle.session(threads=1)
        self.known_keys: KnownKeys | None = None
        target = self.schema.table
        if any(isinstance(part, History) and part.table == target for part in bundle.features.parts):
            known = like.known_keys if like and target in unchanged else None
            wanted = (self.schema.key, self.schema.label)
            self.known_keys = known if known and known.of == wanted else KnownKeys(tables[target], *wanted)
        self._warm_up()

    @property
    def digest(self) -> str:
        """The bundle's digest."""
        return self.bundle.digest

    def _warm_up(self) -> None:
        columns = len(self.schema.features.columns)
        try:
            (answer,) = self._session.run([_OUTPUT], {_INPUT: np.zeros((1, columns), dtype=np.float32)})
        except Exception as error:  # noqa: BLE001 -- onnxruntime has a class for each fault, all unexported
            raise BundleError(
                f"The model of bundle {self.digest[:12]} does not take its {columns} features: {error}."
            ) from None
        if answer.shape != (1, 2):
            raise BundleError(
                f"{_OUTPUT} of bundle {self.digest[:12]} must be of shape (n, 2). Got {answer.shape}."
            )

    def predict(self, rows: Sequence[Sequence[Any]], *, first: int = 0) -> Predicted:
        """Answer rows.

        Args:
            rows: The rows, each with a value for every input, in the inputs' order.
            first: Number of the first row, for messages.

        Raises:
            FeatureError: if a feature cannot be computed for these values.
            RequestError: if the model has no probability for a row.
        """
        features, known_at = self._features(rows)
        (answer,) = self._session.run([_OUTPUT], {_INPUT: features})
        probability: list[float] = answer[:, 1].astype(np.float64).tolist()
        for row, value in enumerate(probability, first):
            if not 0 <= value <= 1:
                raise RequestError(
                    f"The model has no probability for row {row}: its features are out of range."
                )
        return Predicted(
            features, known_at, probability, [value >= self.schema.threshold for value in probability]
        )

    def _features(self, rows: Sequence[Sequence[Any]]) -> tuple[NDArray[np.float32], list[int | None]]:
        plain = self.online.compute_plain(rows) if self._takes_plain else None
        if plain is None:
            frame, known_at = self.online.compute_at(rows)
            return self.schema.features.encode(frame), known_at
        return self.schema.features.encode_rows(plain[0]), plain[1]

    def encode(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float32]:
        """Return the features of rows as the model sees them, of shape (n_rows, n_features).

        Raises:
            FeatureError: if a feature cannot be computed for these values.
        """
        return self._features(rows)[0]

    def explain(self, row: NDArray[np.float32]) -> Explanation:
        """Say what each feature added to the probability of an encoded row.

        Raises:
            BundleError: if the bundle has no background rows.
        """

        def probability(rows: NDArray[np.float32]) -> NDArray[np.float32]:
            (answer,) = self._session.run([_OUTPUT], {_INPUT: rows})
            found: NDArray[np.float32] = answer[:, 1]
            return found

        return explain_row(row, read_background(self.bundle), self.schema.features.names, probability)

    def count(self, changes: Sequence[Change]) -> list[bool]:
        """Let rows count for the histories, but those that the tables know already.

        Returns:
            For each change whether it counts.
        """
        counts = [not known for known in self.knows([change.new for change in changes])]
        for change, new in zip(changes, counts, strict=True):
            if new:
                if change.old is not None:
                    self.online.forget(self.schema.table, change.old)
                self.online.learn(self.schema.table, change.new)
        return counts

    def knows(self, rows: Sequence[dict[str, Any]]) -> list[bool]:
        """Return for each row whether it needs not be learned: the tables have its label already.

        Where no history is over the prediction's table, no row needs to be learned.
        """
        if self.known_keys is None or not rows:
            return [True] * len(rows)
        key = {column: self._types[column] for column in self.schema.key}
        keys = [[row.get(column) for column in key] for row in rows]
        # A row may stem from an earlier bundle whose inputs had other types; it finds no key then.
        frame = pl.DataFrame(keys, schema=key, orient="row", strict=False)
        return [bool(known) for known in self.known_keys.holds(frame)]


def answer_head(model: str, digest: str) -> bytes:
    """Return how each answer of a bundle begins (OIP: inference response)."""
    return orjson.dumps({"model_name": model, "model_version": digest, "parameters": {"bundle": digest}})[:-1]


def load_model(
    workspace: Workspace, name: str, digest: str, trust: TrustRoot, *, like: ServedModel | None = None
) -> ServedModel:
    """Load a bundle and make it ready to answer.

    Args:
        workspace: Where bundles and tables lie.
        name: The model's name.
        digest: The bundle's digest.
        trust: The keys that are trusted.
        like: A model that is loaded already, of the same workspace: what it knows of tables that have not changed
            since is taken over.

    Raises:
        BundleError: if it is missing, tampered with, untrusted, or another model's.
        TableError: if a table that its features read is missing.
        StoreError: if the store fails, or the key of its private fields cannot be used.
    """
    bundle = load_bundle(workspace, digest, trust)
    if bundle.manifest.model != name:
        raise BundleError(
            f"The bundle {digest[:12]} is one of the model {bundle.manifest.model!r}. Expected {name!r}."
        )
    tables = Tables(workspace, name, "valid")
    versions = table_versions(workspace, name, list(bundle.features.tables))
    return ServedModel(
        bundle,
        {table: tables.read(table, version) for table, version in versions.items()},
        versions,
        open_concealer(workspace, bundle.contract.contract),
        like,
    )


def table_versions(workspace: Workspace, name: str, tables: list[str]) -> dict[str, int]:
    """Return the newest version of each of a model's valid tables.

    Raises:
        TableError: if one of them does not exist.
    """
    layer = Tables(workspace, name, "valid")
    versions = {}
    for table in tables:
        found = layer.open(table)
        if found is None:
            raise TableError(
                f"The features need the table {table!r}, and it is not in {layer.uri(table)}.",
                remedy="Ingest and validate its data first.",
            )
        versions[table] = found.version()
    return versions
