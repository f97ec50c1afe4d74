"""``seatrial check``: refuse a wrong contract before anything runs."""

from __future__ import annotations

from rich.markup import escape

from seatrial.cli.app import Json, Model, app, console, print_json


@app.command()
def check(model: Model, as_json: Json = False) -> None:
    """Check a model's contract, feature file and candidates, and say all that is wrong with the line.

    Example: `seatrial check flights`
    """
    from seatrial.model_check import check_model
    from seatrial.training.check import check_candidates

    loaded = check_model(model)
    check_candidates(loaded)
    if as_json:
        print_json({"model": loaded.contract.name, "digest": loaded.digest, "problems": []})
        return
    contract = loaded.contract
    console.print(
        f"[green]✓[/] {escape(str(loaded.path))}: {len(contract.tables)} tables, "
        f"{len(contract.candidates)} candidates, {len(contract.gates.model_fields_set)} gates."
    )
