"""Data tests: from the raw tables to the valid ones, with the rest in quarantine.

The contract's rules become a pandera schema. A row that breaks one goes to the ``quarantine``
layer with the reasons, the others to the ``valid`` layer, from which alone features are made.
A batch of which too much is bad stops the run: nothing of it becomes valid. Each of the three
writes is one commit that names the batch it came from, so a run that is killed between them is
simply done again.
"""

from seatrial.data_tests.profile import profile
from seatrial.data_tests.rules import REASONS, row_problems
from seatrial.data_tests.tested import BatchCheck
from seatrial.data_tests.validate import validate
from seatrial.sources import as_of_or_now

__all__ = ["REASONS", "BatchCheck", "as_of_or_now", "profile", "row_problems", "validate"]
