"""How a run looks in a terminal: a line when a step begins, what it decided, how long it took."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from seatrial.local_runs import StepEvent

_MARKS = {
    "PASS": "[green]PASS[/]",
    "WARN": "[yellow]WARN[/]",
    "FAIL": "[bold red]FAIL[/]",
    "WAIT": "[yellow]waits:[/]",
    "RETRY": "[yellow]again:[/]",
}
_ENDS = {"SUCCESS": "[green]✓[/]", "CACHED": "[green]✓[/]"}


class RunView:
    """Prints a run's events as they happen.

    Args:
        console: Where to print.
        prefix: What stands before each line, such as the month of a replay.
    """

    def __init__(self, console: Console, prefix: str = "") -> None:
        self._console = console
        self._prefix = prefix
        self._status: Status | None = None

    def __call__(self, event: StepEvent) -> None:
        """Print one event."""
        if event.kind == "started":
            self._show_running(event.step)
        elif event.kind == "said":
            mark, _, rest = event.text.partition(" ")
            text = f"{_MARKS[mark]} {escape(rest)}" if mark in _MARKS else escape(event.text)
            self._console.print(f"{self._prefix}  {event.step:<10} {text}")
        else:
            self.stop()
            mark = _ENDS.get(event.text, "[bold red]✗[/]")
            took = "the same as in an earlier run" if event.text == "CACHED" else f"{event.seconds:.1f} s"
            self._console.print(f"{self._prefix}{mark} {event.step:<10} [dim]{took}[/]")

    def _show_running(self, step: str) -> None:
        self.stop()
        if self._console.is_terminal:
            self._status = self._console.status(f"{step} ...")
            self._status.start()

    def stop(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
