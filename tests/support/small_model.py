"""A small model of made-up visits to shops: small enough for a unit test, with every kind of part.

The question: will what was bought on a visit be returned? Visits have a time and a label that
becomes known a few days later, prices change with time, and shops do not.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from seatrial.contract import LoadedContract, load_contract

CONTRACT = """\
version: 1
name: visits
description: Says whether what was bought on a visit will be returned.
owner: shop@example.com

tables:
  visits:
    source: {kind: file, path: data/visits.csv}
    key: [visit]
    time: at
    quarantine_share: 0.2
    columns:
      visit: {type: string, required: true}
      at: {type: time, required: true}
      shop: {type: string, required: true, pattern: "^[A-Z]{2}$"}
      amount: {type: number, minimum: 0, maximum: 1000}
      items: {type: integer, minimum: 1}
      returned: {type: boolean}
      returned_at: {type: time}
  prices:
    source: {kind: file, path: data/prices.csv}
    key: [shop, seen_at]
    time: seen_at
    columns:
      shop: {type: string, required: true}
      seen_at: {type: time, required: true}
      price: {type: number}
  shops:
    source: {kind: file, path: data/shops.csv}
    key: [shop]
    columns:
      shop: {type: string, required: true}
      region: {type: string, allowed: [north, south]}

prediction:
  table: visits
  inputs: [visit, at, shop, amount, items]

label: {column: returned, time: returned_at}

split: {validation: 20d, test: 20d}

candidates:
  - name: logistic_regression
    estimator: sklearn.linear_model.LogisticRegression
    complexity: 1
    encoding: one_hot

costs: {missed: 5, false_alarm: 1}

slices: [shop]

gates:
  minimum_quality: {metric: roc_auc, minimum: 0.5}
  calibration: {maximum: 0.5}
  parity: {maximum_difference: 0.001}
"""

FEATURES = """\
import polars as pl

from seatrial.features import Features, History, Latest, Lookup

FEATURES = Features(
    known_at=pl.col("at"),
    parts=(
        Latest("prices", by=("shop",), time="seen_at", within="3d", columns={"price": "price"}),
        Lookup("shops", by=("shop",), columns={"region": "region"}),
        History("back", "visits", by=("shop",), time="returned_at", value="returned", windows=("1d", "7d")),
    ),
    expressions={"shop": pl.col("shop"), "amount": pl.col("amount"), "hour": pl.col("at").dt.hour()},
)
"""

START = datetime(2024, 1, 1, tzinfo=UTC)
SHOPS = ("AA", "BB", "CC")


def visits(count: int, *, seed: int = 0, days: float = 90) -> pl.DataFrame:
    """Make visits from 1 January 2024 on, in the order of time."""
    random_ = random.Random(seed)
    moments = sorted(START + timedelta(minutes=random_.randrange(int(days * 1440))) for _ in range(count))
    rows = []
    for place, at in enumerate(moments):
        amount = round(random_.uniform(1, 100), 2)
        returned = random_.random() < (0.6 if amount > 60 else 0.2)
        known = at + timedelta(hours=random_.randrange(1, 72))
        rows.append(
            (f"v{place:06d}", at, random_.choice(SHOPS), amount, random_.randint(1, 9), returned, known)
        )
    names = ("visit", "at", "shop", "amount", "items", "returned", "returned_at")
    return pl.DataFrame(rows, schema=dict.fromkeys(names), orient="row")


def prices(*, seed: int = 0, days: int = 90) -> pl.DataFrame:
    """Make a price a day for each shop; some days are missing."""
    random_ = random.Random(seed)
    rows = [
        (shop, START + timedelta(days=day, hours=6), round(random_.uniform(5, 9), 2))
        for day in range(days)
        for shop in SHOPS
        if random_.random() < 0.8
    ]
    return pl.DataFrame(rows, schema=["shop", "seen_at", "price"], orient="row")


def shops() -> pl.DataFrame:
    """Make the table of shops; one of them is missing from it."""
    return pl.DataFrame({"shop": ["AA", "BB"], "region": ["north", "south"]})


def write_csv(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as a source would: times in ISO 8601."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [name for name, kind in frame.schema.items() if kind == pl.Datetime]
    frame.with_columns(pl.col(times).dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(path)


def write_model(folder: Path, *, contract: str = CONTRACT, features: str = FEATURES, rows: int = 300) -> Path:
    """Write the model with its data below ``folder`` and return the contract's path."""
    model = folder / "visits"
    write_csv(visits(rows), model / "data" / "visits.csv")
    write_csv(prices(), model / "data" / "prices.csv")
    write_csv(shops(), model / "data" / "shops.csv")
    (model / "features.py").write_text(features)
    (model / "model.yaml").write_text(contract)
    return model / "model.yaml"


def loaded_model(folder: Path, **changes: str) -> LoadedContract:
    """Write the model and load its contract."""
    return load_contract(write_model(folder, **changes))  # type: ignore[arg-type]
