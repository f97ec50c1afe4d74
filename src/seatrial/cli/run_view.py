"""How a run looks in a terminal: a line when a step begins, what it decided, how long it took."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from seatrial.local_runs import StepEvent

_MARKS = {"PASS": "[green]PASS[/]", "WARN": "[yellow]WARN[/]", "FAIL": "[bold red]FAIL[/]"}


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
            good = event.text == "SUCCESS"
            mark = "[green]✓[/]" if good else "[bold red]✗[/]"
            self._console.print(f"{self._prefix}{mark} {event.step:<10} [dim]{event.seconds:.1f} s[/]")

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
