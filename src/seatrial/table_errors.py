"""What Delta Lake, polars and the store say when a table cannot be used, as errors that name the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
from deltalake.exceptions import CommitFailedError, DeltaError

from seatrial.errors import StoreError, TableError
from seatrial.workspace import Workspace

# A file that was cut off makes polars panic, which is no Exception in Python.
_UNREADABLE = (DeltaError, pl.exceptions.PolarsError, pl.exceptions.PanicException, FileNotFoundError)


class TableChangedError(TableError):
    """Somebody else committed to the table between the look at it and the commit."""


@contextmanager
def table_errors(workspace: Workspace, name: str) -> Iterator[None]:
    """Turn the errors of whatever uses a table into ours.

    Args:
        workspace: Where the table lies.
        name: Name of the table.

    Raises:
        TableChangedError: for a commit that somebody else's came before.
        TableError: for a table that is damaged.
        StoreError: for a store that failed, or is full.
    """
    with workspace.errors(f"using the table {name}"):
        try:
            yield
        except CommitFailedError as error:
            raise TableChangedError(
                f"The table {name} was changed by someone else at the same moment: {_first_line(error)}.",
                remedy="Nothing was written. Run the command again.",
            ) from error
        except _UNREADABLE as error:
            if "No space left" in str(error):
                raise StoreError(
                    f"The disk is full while writing the table {name}.",
                    remedy="Free some space and run the command again; the table is as it was.",
                ) from error
            raise TableError(f"The table {name} cannot be used: {_first_line(error)}.") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
