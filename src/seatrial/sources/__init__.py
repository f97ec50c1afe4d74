"""Ingest: from where the data are to the raw tables, a batch a period.

Everything that arrives is kept, in the ``raw`` layer, with the reasons why a value could not be
read beside it (``_problems``); whether a row may be learned from is the data tests' business.
What cannot be a batch at all (a missing column, a wrong separator, no rows) is refused before
anything is written.
"""

from seatrial.sources.conform import NOT_A, PROBLEMS, TYPES, conform, parsed_as
from seatrial.sources.files import read_csv_text, read_package_file, read_raw
from seatrial.sources.ingest import UNDATED, WHOLE, ingest, read_source
from seatrial.sources.period import Period, as_of_or_now

__all__ = [
    "NOT_A",
    "PROBLEMS",
    "TYPES",
    "UNDATED",
    "WHOLE",
    "Period",
    "as_of_or_now",
    "conform",
    "ingest",
    "parsed_as",
    "read_csv_text",
    "read_package_file",
    "read_raw",
    "read_source",
]
