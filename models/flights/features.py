"""What is known of a flight two hours before its scheduled departure.

Training computes these for whole months, serving for one request, from the same definitions. No
departure delay, no later weather; lateness counts only flights that had landed by then.
"""

import polars as pl

from seatrial.features import Features, History, Latest, Lookup

local = pl.col("scheduled_departure").dt.convert_time_zone("America/New_York")


def lateness(name: str, *by: str, windows: tuple[str, ...] = ("1d", "7d", "28d")) -> History:
    """Share of late flights, and how many had landed, for the flights with the same ``by``."""
    return History(name, "flights", by=by, time="landed_at", value="late", windows=windows)


FEATURES = Features(
    known_at=pl.col("scheduled_departure") - pl.duration(hours=2),
    parts=(
        Latest(
            "weather",
            by=("origin",),
            time="observed_at",
            within="6h",
            columns={
                "temperature": "temp",
                "dew_point": "dewp",
                "humidity": "humid",
                "wind_speed": "wind_speed",
                "wind_gust": "wind_gust",
                "precipitation": "precip",
                "pressure": "pressure",
                "visibility": "visib",
            },
        ),
        Lookup("planes", by=("tailnum",), columns={"seats": "seats", "built": "built"}),
        lateness("carrier_late", "carrier"),
        lateness("route_late", "origin", "dest"),
        lateness("plane_late", "tailnum"),
        lateness("origin_late", "origin", windows=("3h", "1d")),
    ),
    expressions={
        "carrier": pl.col("carrier"),
        "origin": pl.col("origin"),
        "dest": pl.col("dest"),
        "hour": local.dt.hour(),
        "weekday": local.dt.weekday(),
        "distance": pl.col("distance"),
        "scheduled_minutes": (pl.col("scheduled_arrival") - pl.col("scheduled_departure")).dt.total_minutes(),
        "plane_age": local.dt.year() - pl.col("built"),
    },
)
