"""The errors of Seatrial: one class for each situation that a caller can act on.

Every message says what was wrong and where, what was expected and what was got; ``remedy`` says
what to do next. The command line prints both without a traceback and exits with the class's
``exit_code``::

    SeatrialError                    1
    ├── UsageError                   2   the command or its arguments are wrong
    ├── ContractError                3   model.yaml or features.py is wrong; all problems at once
    ├── SourceError                  4   data could not be read as the contract says
    ├── DataTestError                5   too many rows failed the contract's data tests
    ├── TableError                   6   a table is missing, damaged, or not at that version
    ├── FeatureError                 7   a feature could not be computed
    ├── TrainingError                8   no candidate could be trained
    ├── GateError                    9   a gate failed: the model is not let through
    ├── BundleError                 10   a bundle is missing or not readable
    │   ├── TamperedBundleError     11   its bytes are not what its manifest says
    │   └── UntrustedBundleError    12   it is not signed by a key that is trusted here
    ├── RegistryError               13   the experiment registry could not be used
    ├── PointerMovedError           14   somebody else promoted in the meantime
    ├── RequestError                15   a request to the server is malformed (HTTP 4xx)
    ├── FeedbackError               16   the feedback log cannot be written or read
    ├── StoreError                  17   the workspace's storage is full, away, or refuses
    ├── ClusterError                18   a cluster, or what runs on it, is not as it must be
    │   └── NotOurClusterError      19   it was not made by Seatrial, and nobody said to use it
    ├── ToolError                   20   helm, kind, kubectl or a container engine is missing or failed
    ├── RunError                    21   a run on a cluster ended without all of its outputs
    ├── ApprovalError               22   a person's word is missing, or does not count here
    └── AuditError                  23   what is served, git and the record do not agree
"""

from __future__ import annotations

from dataclasses import dataclass


class SeatrialError(Exception):
    """Something that the user can act on.

    Attributes:
        message: What was wrong, where, what was expected and what was got.
        remedy: What to do next; empty where the message says it all.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


class UsageError(SeatrialError):
    """The command or its arguments are wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a contract.

    Attributes:
        place: Dotted path of the key, such as ``gates.calibration.maximum``.
        message: What is wrong and what would be right.
        line: Line in the file, counted from 1; None where there is none.
    """

    place: str
    message: str
    line: int | None = None


class ContractError(SeatrialError):
    """A contract or its feature file is wrong. All problems are reported at once.

    Attributes:
        path: The file that is wrong.
        problems: What is wrong in it, in the order of its lines.
    """

    exit_code = 3

    def __init__(self, path: str, problems: list[Problem], *, remedy: str = "") -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda p: (p.line or 0, p.place))
        places = [(f"{path}:{p.line}" if p.line else path, p.place, p.message) for p in self.problems]
        lines = [": ".join(part for part in place if part) for place in places]
        super().__init__("\n".join(lines), remedy=remedy)


class SourceError(SeatrialError):
    """Data could not be read as the contract says."""

    exit_code = 4


class DataTestError(SeatrialError):
    """Too many rows of a batch failed the contract's data tests."""

    exit_code = 5


class TableError(SeatrialError):
    """A table is missing, damaged, or not at the version that was asked for."""

    exit_code = 6


class FeatureError(SeatrialError):
    """A feature could not be computed."""

    exit_code = 7


class TrainingError(SeatrialError):
    """No candidate could be trained."""

    exit_code = 8


class GateError(SeatrialError):
    """A gate failed, so the model is not let through."""

    exit_code = 9


class BundleError(SeatrialError):
    """A bundle is missing or cannot be read."""

    exit_code = 10


class TamperedBundleError(BundleError):
    """A bundle's bytes are not what its manifest says.

    Attributes:
        file: The file of the bundle that is wrong.
    """

    exit_code = 11

    def __init__(self, message: str, *, file: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.file = file


class UntrustedBundleError(BundleError):
    """A bundle is not signed by a key that is trusted here."""

    exit_code = 12


class RegistryError(SeatrialError):
    """The experiment registry could not be used."""

    exit_code = 13


class PointerMovedError(SeatrialError):
    """Somebody else moved a pointer between the look at it and the change."""

    exit_code = 14


class RequestError(SeatrialError):
    """A request to the server is malformed; answered with a 4xx status.

    Attributes:
        status: The HTTP status to answer with.
    """

    exit_code = 15

    def __init__(self, message: str, *, status: int = 400, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class FeedbackError(SeatrialError):
    """The feedback log cannot be written or read."""

    exit_code = 16


class StoreError(SeatrialError):
    """The workspace's storage is full, away, or refuses."""

    exit_code = 17


class ClusterError(SeatrialError):
    """A cluster, or what runs on it, is not as it must be: away, too small, unhealthy, without an image."""

    exit_code = 18


class NotOurClusterError(ClusterError):
    """A cluster or namespace was not made by Seatrial, and nobody said to use it all the same."""

    exit_code = 19


class ToolError(SeatrialError):
    """A command that the cluster part needs (helm, kind, kubectl, docker or podman) is missing or failed.

    Attributes:
        said: All that it said, of which the message has the end; empty where it did not run.
    """

    exit_code = 20

    def __init__(self, message: str, *, remedy: str = "", said: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.said = said


class RunError(SeatrialError):
    """A run on a cluster ended without all of its outputs, and no error of the step's own says why."""

    exit_code = 21


class ApprovalError(SeatrialError):
    """A person's word is missing, or is not one that counts for this move."""

    exit_code = 22


class AuditError(SeatrialError):
    """What is served, what git says and what the record says do not agree."""

    exit_code = 23
