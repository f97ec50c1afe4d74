"""``seatrial history``, ``audit``, ``tell-git`` and ``environments``: what was done, and whether it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from seatrial.cli.app import Json, Model, app, console, print_json

environments = typer.Typer(
    help="Look at the environments in git, and say who is trusted there.", no_args_is_help=True
)
app.add_typer(environments, name="environments")

Name = Annotated[
    str, typer.Argument(help="Name of an environment in manifests/environments.", show_default=False)
]


@app.command()
def history(
    model: Model,
    env: Annotated[
        list[str] | None,
        typer.Option(help="Only this environment; may be given more than once.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show all that was done about a model in the environments: gates, approvals, stages, promotions, roll-backs.

    Example: `seatrial history flights --env production`
    """
    from seatrial.contract import load_contract
    from seatrial.promotion.environment import environment_names, open_environment
    from seatrial.promotion.pointer import PROMOTION, pointer_log

    name = load_contract(model).contract.name
    found: list[dict[str, Any]] = []
    for place in env or environment_names():
        log = pointer_log(open_environment(place).open_workspace(), place, name)
        found += [
            {"environment": place, "number": r.number, "sha256": r.sha256, "kind": PROMOTION, **r.content}
            for r in log.all()
        ]
    if as_json:
        print_json(found)
        return
    shown = Table("when", "environment", "no.", "what", "bundle", "by", "why")
    for said in found:
        cells = [said.get("at", ""), said["environment"], str(said["number"]), said["kind"]]
        cells += [str(said.get("digest"))[:12], said.get("by", ""), _why(said)]
        shown.add_row(*(Text(str(cell)) for cell in cells))
    console.print(shown if found else f"Nothing was done about {name} in any environment yet.")


def _why(said: dict[str, Any]) -> str:
    if said["kind"] == "stage":
        return f"canary of {said['weight']}%" if said["weight"] else "shadow"
    if said["kind"] != "gates":
        return str(said.get("reason") or said.get("comment") or "")
    outcomes = [f"{verdict['check']} {verdict['outcome']}" for verdict in said.get("verdicts", [])]
    return ", ".join(outcomes)


@app.command()
def audit(
    environment: Annotated[
        list[str] | None,
        typer.Argument(help="Names of environments. [default: all]", show_default=False),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a server that must serve what is recorded, such as http://127.0.0.1:8080; "
            "may be given more than once.",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        str,
        typer.Option(
            help="Also look at what runs in this cluster, by its kubeconfig context: which bundle is served, and "
            "whether the objects are those of the manifests.",
            show_default=False,
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Verify that record, bundles, approvals, git and what runs agree. Exits with 23 if they do not.

    Example: `seatrial audit production --server http://127.0.0.1:8080`
    """
    from seatrial.delivery.audit import audit as run
    from seatrial.errors import AuditError
    from seatrial.promotion.environment import environment_names

    done = [
        run(name, servers=tuple(server or ()), context=context) for name in environment or environment_names()
    ]
    findings = [finding for one in done for finding in one.findings]
    if as_json:
        print_json({"findings": findings, "looked_at": [place for one in done for place in one.looked_at]})
    else:
        for finding in findings:
            where = ", ".join(part for part in (finding.environment, finding.model, finding.what) if part)
            console.print(f"[bold red]✗[/] [bold]{where}[/]:", Text(finding.message), soft_wrap=True)
        if not findings:
            places = sum(len(one.looked_at) for one in done)
            console.print(f"[green]✓[/] Everything agrees, in {places} places that were looked at.")
    if findings:
        raise AuditError(
            f"{len(findings)} places are not as they must be."
            if findings[1:]
            else "1 place is not as it must be.",
            remedy="See docs/how-to/promotion.md.",
        )


@app.command("tell-git")
def tell_git(
    environment: Name,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only this model; may be given more than once.", show_default=False),
    ] = None,
    push: Annotated[
        str,
        typer.Option(
            help="A remote of git that is to have the branches, too, such as origin.", show_default=False
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Write a branch for each roll-back that git does not say yet, such as one by a guard on a cluster.

    Nothing is moved, and the store is only read: an environment's candidate that a guard took back is
    recorded by a pod, which has no clone. For a job that looks every few minutes: run again, it writes a
    branch anew only where what it would say has changed. Until it is merged, nothing moves forward there.

    Example: `seatrial tell-git production --push origin`
    """
    from seatrial.delivery.declared import declared_models
    from seatrial.delivery.rollback import tell_git as run
    from seatrial.promotion.environment import open_environment

    opened = open_environment(environment)
    found = [run(opened, name, remote=push) for name in model or declared_models(opened)]
    untold = [one for one in found if one is not None]
    if as_json:
        print_json(untold)
        return
    for one in untold:
        console.print(
            f"[green]✓[/] {environment} serves {one.digest[:12]} of {one.model} since {one.at}, instead of "
            f"{str(one.previous)[:12]}:",
            Text(one.reason),
            soft_wrap=True,
        )
        console.print(f"Git says so on the branch [bold]{one.branch.name}[/]: merge it.", soft_wrap=True)
    if not untold:
        console.print(f"[green]✓[/] Git knows of every roll-back in {environment}.")


@environments.command("list")
def list_environments(as_json: Json = False) -> None:
    """List the environments, with what each serves and what git says.

    Example: `seatrial environments list`
    """
    from seatrial.delivery.declared import read_declared
    from seatrial.promotion.environment import environment_names, open_environment
    from seatrial.promotion.pointer import read_pointer

    found: list[dict[str, Any]] = []
    for name in environment_names():
        environment = open_environment(name)
        workspace = environment.open_workspace()
        for model in sorted({key.split("/")[2] for key in workspace.list(f"environments/{name}")}) or [""]:
            pointer = read_pointer(workspace, name, model) if model else None
            declared = read_declared(environment, model) if model else None
            found.append(
                {
                    "environment": name,
                    "after": environment.rules.after,
                    "approvals": environment.rules.approvals,
                    "workspace": environment.address,
                    "model": model,
                    "serves": pointer.digest if pointer else None,
                    "git": declared.digest if declared else None,
                }
            )
    if as_json:
        print_json(found)
        return
    shown = Table("environment", "after", "approvals", "workspace", "model", "serves", "git says")
    for said in found:
        row = [said["environment"], said["after"] or "", said["approvals"], said["workspace"], said["model"]]
        row += [(said[key] or "")[:12] for key in ("serves", "git")]
        shown.add_row(*(Text(str(cell)) for cell in row))
    console.print(shown)


@environments.command()
def trust(
    environment: Name,
    key: Annotated[
        Path, typer.Argument(help="Public key of a maker of bundles, in PEM form.", show_default=False)
    ],
) -> None:
    """Trust a maker of bundles in an environment: put the public key beside its rules, for git.

    Example: `seatrial environments trust staging .seatrial/keys/trusted/KEY.pem`
    """
    from seatrial.delivery.keys import trust_maker

    path = trust_maker(environment, key)
    console.print(f"[green]✓[/] {path}. Commit it, so that others see whom {environment} trusts.")


@environments.command()
def approver(
    environment: Name,
    person: Annotated[str, typer.Argument(help="The person's name, such as alice.", show_default=False)],
    key: Annotated[
        Path,
        typer.Option(
            help="The person's private key; it is made if it is not there, and stays with the person.",
            show_default=False,
        ),
    ],
) -> None:
    """Let a person approve in an environment: put the public half of a key beside its rules, for git.

    Example: `seatrial environments approver production alice --key alice.pem`
    """
    from seatrial.delivery.keys import add_approver

    path = add_approver(environment, person, key)
    console.print(f"[green]✓[/] {path}. Commit it: whoever has {key} may approve in {environment} then.")
