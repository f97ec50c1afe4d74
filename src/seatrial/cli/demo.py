"""``seatrial demo``: real flights round the whole loop, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from seatrial.cli.app import Json, app, console, errors, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from seatrial.demo import Month, Summary
    from seatrial.local_runs import StepEvent


class _Terminal:
    """Prints what the demonstration tells; one spinner at a time on a terminal, plain lines elsewhere."""

    def __init__(self, target: Console) -> None:
        from seatrial.cli.run_view import RunView

        self._console = target
        self._view = RunView(target)
        self._in_pipeline = False
        self._status: Any = None
        self._shown: tuple[str, int] = ("", 0)

    def stage(self, title: str) -> None:
        self._stop()
        if title:
            self._console.print(f"\n[bold]{escape(title)}[/]")

    def event(self, event: StepEvent) -> None:
        self._in_pipeline = True
        self._stop()
        self._view(event)

    def progress(self, what: str, done: int, total: int) -> None:
        if self._in_pipeline and done < total:
            return
        quarter = 4 * done // max(total, 1)
        if self._console.is_terminal:
            text = f"{what}: {done:,} of {total:,} flights asked about"
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif (what, quarter) > self._shown:
            self._shown = (what, quarter)
            self._console.print(f"  {what}: {done:,} of {total:,} flights asked about")

    def resume(self) -> None:
        self._in_pipeline = False

    def note(self, line: str) -> None:
        self._stop()
        self._console.print(f"  {escape(line)}")

    def close(self) -> None:
        self._stop()
        self._view.stop()

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option(help="Folder for everything; an earlier demonstration there is removed.")
    ] = Path("build/demo"),
    months: Annotated[int, typer.Option(min=1, max=6, help="Live months from July 2013 on.")] = 6,
    as_json: Json = False,
) -> None:
    """Show the whole loop on a year of real flights: train, serve, live traffic, drift, retraining.

    Needs no cluster and no server, 2 to 6 minutes and less than 2 GiB of memory.

    Example: `seatrial demo --months 2`
    """
    from seatrial.demo import LIVE_MONTHS, Demo, stop_children

    terminal = _Terminal(errors if as_json else console)
    try:
        summary = Demo(folder, LIVE_MONTHS[:months], terminal).run()
    except KeyboardInterrupt:
        terminal.close()
        stop_children()
        raise
    finally:
        terminal.close()
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary, folder)


def _print_summary(summary: Summary, folder: Path) -> None:
    console.rule("[bold]What you have seen[/]")
    training = summary.training
    for candidate in training["candidates"]:
        metrics = candidate["metrics"]
        chosen = " [green]chosen[/]" if candidate["chosen"] else ""
        console.print(
            f"{candidate['name']}: ROC AUC {metrics['roc_auc']:.3f}, average precision "
            f"{metrics['average_precision']:.3f} on validation rows, {candidate['seconds']:.0f} s{chosen}"
        )
    auc, cost = training["test"]["roc_auc"], training["test"]["cost_ratio"]
    console.print(
        f"On {training['rows']['test']:,} later flights: ROC AUC {auc['value']:.3f} ({auc['low']:.3f} to "
        f"{auc['high']:.3f}); mistakes cost {cost['value']:.2f} of what doing nothing costs."
    )
    console.print(_months_table(summary))
    console.print(
        "[dim]drifted: features beyond the contract's bounds (red: too many). AUC drop: live ROC AUC below the "
        "bundle's test figure. AP: gain in average precision over the champion, same rows.[/]"
    )
    parity = summary.parity
    console.print(
        f"Features served live and computed in training: {parity['equal']:,} of {parity['values']:,} values are equal."
    )
    total = summary.seconds["total"]
    console.print(f"\n[bold]Look at[/] (everything took {total:.0f} s)")
    for name, path in summary.reports.items():
        console.print(f"  {name}: {path}", soft_wrap=True)
    workspace = summary.workspace
    console.print(f"  all figures: {folder / 'summary.json'}", soft_wrap=True)
    console.print(
        f"  runs and versions: mlflow ui --backend-store-uri sqlite:///{workspace}/mlflow.db", soft_wrap=True
    )
    console.print(f"  serve it yourself: seatrial serve flights --workspace {workspace}", soft_wrap=True)


def _months_table(summary: Summary) -> Table:
    table = Table("month", "flights", "failed", "p99 ms", "drifted", "AUC drop", "trained again")
    colour = {"pass": "green", "warn": "yellow", "fail": "red"}
    for month in summary.months:
        drift, quality = month.verdicts["monitor.drift"], month.verdicts["monitor.quality"]
        drop = "" if quality["value"] is None else f"[{colour[quality['outcome']]}]{quality['value']:+.3f}[/]"
        table.add_row(
            month.name,
            f"{month.rows:,}",
            str(month.failed),
            f"{month.latency_milliseconds[1]:.0f}",
            f"[{colour[drift['outcome']]}]{len(month.drifted)}[/]",
            drop,
            _trained_again(month),
        )
    return table


def _trained_again(month: Month) -> str:
    if month.challenger is None:
        return ""
    verdict = "took over" if month.challenger["served"] else "refused"
    gain = month.challenger["gain"]
    return verdict + (f", AP {gain['value']:+.3f}" if gain else "")
