"""Runs one step by ``StepProcesses`` that says which process it is and then does what the argument says."""

import sys

from seatrial.step_processes import StepProcesses
from support.steps import step_command


def main() -> None:
    """Run the step, and end as it ended."""
    with StepProcesses() as processes:
        sys.exit(processes.run(step_command(sys.argv[1]), otherwise=lambda *_: 99))


if __name__ == "__main__":
    main()
