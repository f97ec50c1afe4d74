"""A process that ingests when it is told to: ``MODEL ROOT``."""

import json
import sys

from seatrial.contract import load_contract
from seatrial.sources import ingest
from seatrial.workspace import Workspace
from support.bundles import AS_OF


def main() -> None:
    """Ingest everything and print the status of each batch."""
    loaded, workspace = load_contract(sys.argv[1]), Workspace.open(sys.argv[2])
    sys.stdin.readline()
    results = ingest(loaded, workspace, until=AS_OF)
    print(json.dumps({f"{result.table} {result.batch}": result.status for result in results}))


if __name__ == "__main__":
    main()
