"""A bundle into an environment, and back: ``promote``, ``approve``, ``reconcile``, ``rollout`` and ``rollback``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from seatrial.cli.app import AsOf, Json, Model, WorkspaceOption, app, console, print_json
from seatrial.errors import ApprovalError, ClusterError, SeatrialError, StoreError, UsageError

if TYPE_CHECKING:
    from seatrial.delivery.predictors import Predictors
    from seatrial.delivery.reconcile import Reconciled
    from seatrial.delivery.rollout import RollOutState

LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
"""How long store or cluster may be away from who leads a roll-out on: nobody else looks at the guards meanwhile."""
KEY_VARIABLE = "SEATRIAL_APPROVER_KEY"
EnvironmentName = Annotated[
    str, typer.Argument(help="Name of an environment in manifests/environments.", show_default=False)
]
Where = Annotated[str, typer.Option("--env", help="Name of the environment.", show_default=False)]
Context = Annotated[
    str,
    typer.Option(
        help="Also hand the manifests to this cluster, by its kubeconfig context: kubectl apply -k.",
        show_default=False,
    ),
]
Reason = Annotated[str, typer.Option(help="Why, for the record.", show_default=False)]

Wait = Annotated[
    bool,
    typer.Option("--wait", help="Go on until nothing is rolled out any more. Exits with 9 if one went back."),
]
Every = Annotated[float, typer.Option(help="Seconds between two looks at the guards.", min=0.1)]
Git = Annotated[
    bool,
    typer.Option(
        "--git/--no-git",
        help="Whether the environment's files are in a clone of git. With --no-git, as in a pod, git is told of a "
        "roll-back by whoever runs this in a clone next.",
    ),
]
InCluster = Annotated[
    bool,
    typer.Option(
        "--in-cluster",
        help="Set the predictors of SeldonDeployments as the account of the pod that this runs in.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        help="Your private key, where the environment wants approvals.",
        envvar=KEY_VARIABLE,
        show_default=False,
    ),
]


def _model_name(model: str) -> str:
    from seatrial.contract import load_contract

    return load_contract(model).contract.name


@app.command()
def promote(
    model: Model,
    to: Annotated[str, typer.Option("--to", help="Name of the environment.", show_default=False)],
    bundle: Annotated[
        str,
        typer.Option(
            help="A bundle's digest, or its first 6 digits or more. "
            "[default: the one that the environment before serves]",
            show_default=False,
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    text: Annotated[
        Path | None,
        typer.Option(help="File for the pull request's text, as Markdown.", show_default=False),
    ] = None,
    as_of: AsOf = "",
    as_json: Json = False,
) -> None:
    """Prepare that an environment serves a bundle: judge it, copy it, and write the change on a git branch.

    Nothing is served by this. The bundle's digests and its signature are verified here and there, and
    what the environment demands is judged and recorded. Merge the branch, and `seatrial reconcile`
    makes it true. Exits with 9 if a gate or a demand failed.

    Example: `seatrial promote flights --to staging`
    """
    from seatrial.data_tests import as_of_or_now
    from seatrial.delivery.proposal import propose, refuse_failed

    name = _model_name(model)
    proposal = propose(name, to, digest=bundle, as_of=as_of_or_now(as_of), dry_run=dry_run)
    if text is not None:
        text.write_text(proposal.text, encoding="utf-8")
    if as_json:
        print_json({**vars(proposal), "verdicts": [v.model_dump(mode="json") for v in proposal.verdicts]})
    else:
        console.print(Markdown(proposal.text))
        console.print(_next_step(proposal.branch.name if proposal.branch else None, to, dry_run=dry_run))
    refuse_failed(proposal.verdicts, proposal.digest, to)


def _next_step(branch: str | None, to: str, *, dry_run: bool) -> str:
    if branch is not None:
        return f"[green]✓[/] On the branch [bold]{branch}[/]. Merge it, then: seatrial reconcile {to}"
    return "Only looked: nothing was written." if dry_run else f"{to} serves it already."


@app.command()
def approve(
    model: Annotated[
        str,
        typer.Argument(
            help="The model's name; or, without --env, the name of a run that asks.",
            metavar="MODEL_OR_RUN",
            show_default=False,
        ),
    ],
    env: Annotated[
        str, typer.Option(help="Name of the environment; without it a run is answered.", show_default=False)
    ] = "",
    key: Annotated[
        Path | None, typer.Option(help="Your private key.", envvar=KEY_VARIABLE, show_default=False)
    ] = None,
    bundle: Annotated[
        str,
        typer.Option(
            help="The bundle's digest, or its first 6 digits or more. [default: the one that was judged last]",
            show_default=False,
        ),
    ] = "",
    comment: Annotated[str, typer.Option(help="What shall be remembered.", show_default=False)] = "",
    no: Annotated[bool, typer.Option("--no", help="Answer a run with no.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Approve, with your key, that an environment serves a bundle; or answer a run that waits for a person.

    With --env you sign the model, the environment, the bundle, the move that it follows and the evidence
    that you saw; it is good for nothing else. Exits with 22 if your key may not approve, or the run waits
    no more.

    Example: `seatrial approve flights --env production --key alice.pem`
    """
    if not env:
        from seatrial.promotion.questions import answer
        from seatrial.workspace import Workspace

        asked = answer(Workspace.open(workspace), model, approved=not no, comment=comment)
        said = "may not" if no else "may"
        console.print(f"[green]✓[/] {asked.environment} {said} serve {asked.digest[:12]} of {asked.model}.")
        return
    if key is None or no or workspace:
        raise UsageError("With --env, --key is needed, and --no and --workspace mean nothing.")
    _sign(_model_name(model), env, key, bundle, comment)


def _sign(model: str, env: str, key: Path, bundle: str, comment: str) -> None:
    from seatrial.bundle.signing import read_signer
    from seatrial.bundle.store import find_bundle
    from seatrial.promotion.approvals import GATES
    from seatrial.promotion.approvals import approve as sign
    from seatrial.promotion.environment import open_environment
    from seatrial.promotion.pointer import pointer_log, read_pointer

    environment = open_environment(env)
    place = environment.open_workspace()
    expected = read_pointer(place, env, model)
    wanted = find_bundle(place, bundle) if bundle else None
    evidence = pointer_log(place, env, model).newest(
        lambda said: said.get("kind") == GATES and wanted in (None, said.get("digest"))
    )
    if evidence is None:
        raise ApprovalError(
            f"No bundle of {model} was judged for {env}, so there is nothing to approve.",
            remedy=f"Prepare it: seatrial promote {model} --to {env}",
        )
    given = sign(
        environment,
        place,
        model,
        str(evidence.content["digest"]),
        signer=read_signer(key),
        expected=expected,
        evidence=evidence,
        comment=comment,
    )
    console.print(
        f"[green]✓[/] {given.by} approves bundle {given.digest[:12]} of {model} for {env}, "
        f"until {given.expires.isoformat()}."
    )


@app.command()
def reconcile(
    environment: EnvironmentName,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only this model; may be given more than once.", show_default=False),
    ] = None,
    context: Context = "",
    wait: Wait = False,
    every: Every = LOOK_SECONDS,
    git: Git = True,
    in_cluster: InCluster = False,
    as_json: Json = False,
) -> None:
    """Make an environment what git says: the one step that follows a merge, and finishes what was killed.

    All that a move rests on is checked once more: the bundle in the environment's own store, what its
    gates found, who approved. Run again, it changes nothing. Where the environment rolls bundles out, it
    begins that, and leads it on by a step, or back, as the guards say. One model that is refused does not
    keep the others. With --context, the cluster is asked first whether you may: nothing is moved that could
    not be told to it; and it ends when the pods serve it, with 18 if they do not come up. The predictors of a
    SeldonDeployment get the weights of the step with --context or --in-cluster.

    Example: `seatrial reconcile staging`
    """
    from seatrial.delivery.apply import apply_manifests, check_manifests, wait_for_pods
    from seatrial.delivery.rollout import advance, tell_git_of_roll_backs
    from seatrial.promotion.environment import open_environment

    if git:
        tell_git_of_roll_backs(environment, models=model)
    if context:
        check_manifests(open_environment(environment), context)
    mesh = _open_mesh(environment, model, context, in_cluster=in_cluster, every=every if wait else None)
    mesh.quiet = as_json
    done, refused = _reconcile_each(environment, model)
    if refused is not None and not done:
        mesh.settle()
        raise refused
    applied = apply_manifests(open_environment(environment), context) if context else ""
    reconciled = [one.model for one in done] or model
    mesh.follow()
    states = advance(environment, models=reconciled, git=git, see=mesh.predictors.see)
    if as_json:
        print_json(done)
    else:
        _show_reconciled(environment, done, applied)
        for state in states:
            _show_roll_out(environment, state)
    if context:
        wait_for_pods(open_environment(environment), [one.model for one in done], context)
    _lead_to_the_end(environment, reconciled, states, mesh, git=git)
    if refused is not None:
        raise refused


@dataclass
class _Mesh:
    """The predictors between which a mesh splits the requests, as far as a command has to do with some.

    Attributes:
        predictors: Those of the environment.
        models: The models.
        every: Seconds between two looks; None: only one is asked for.
        quiet: Whether nothing is printed.
    """

    predictors: Predictors
    models: list[str]
    every: float | None
    quiet: bool = False

    def follow(self) -> bool:
        """Set them nearer to what the record says; return whether that was left to do."""
        said = self.predictors.follow(self.models)
        for line in [] if self.quiet else said:
            console.print(f"[green]✓[/] {self.predictors.environment.name} {line}", highlight=False)
        return bool(said)

    def settle(self) -> None:
        """Set them as the record says, with all the looks that it takes if waiting was asked for."""
        while self.follow() and self.every is not None:
            time.sleep(self.every)


def _open_mesh(
    environment: str, models: list[str] | None, context: str, *, in_cluster: bool, every: float | None
) -> _Mesh:
    from seatrial.delivery.declared import declared_models
    from seatrial.delivery.predictors import Predictors, is_split_by_mesh
    from seatrial.kubernetes_api import Kubernetes
    from seatrial.promotion.environment import open_environment

    opened = open_environment(environment)
    named = models or declared_models(opened)
    split = [model for model in named if is_split_by_mesh(opened, model)]
    cluster = Kubernetes(context) if split and (context or in_cluster) else None
    return _Mesh(Predictors(opened, cluster), split, every)


def _reconcile_each(
    environment: str, models: list[str] | None
) -> tuple[list[Reconciled], SeatrialError | None]:
    """Make what git says of each model true; return what became of them, and why the first one was refused."""
    from seatrial.delivery.declared import declared_models
    from seatrial.delivery.reconcile import reconcile as run
    from seatrial.promotion.environment import open_environment

    done: list[Reconciled] = []
    refused: SeatrialError | None = None
    for model in models or declared_models(open_environment(environment)):
        try:
            done += run(environment, models=[model])
        except SeatrialError as error:
            refused = refused or error
    return done, refused


def _show_reconciled(environment: str, done: list[Reconciled], applied: str) -> None:
    for one in done:
        if one.stage is not None:
            said = f"tries {one.digest[:12]} of {one.model} ({one.stage})"
        else:
            said = f"serves {one.digest[:12]} of {one.model} (generation {one.generation}): {one.state}."
        console.print(f"[green]✓[/] {environment} {said}")
    if not done:
        console.print(f"Git names no bundle for {environment}.")
    if applied:
        console.print(applied.rstrip(), markup=False)


def _show_roll_out(environment: str, state: RollOutState) -> None:
    mark = "[bold red]✗[/]" if state.state == "rolled back" else "[green]✓[/]"
    step = f"canary of {state.weight}%" if state.weight else "shadow"
    console.print(
        f"{mark} {environment} {state.model} {state.candidate[:12]} ({step}, {state.judged.rows:,} rows): "
        f"{state.state}.",
        Text(state.why),
        soft_wrap=True,
    )


def _lead_to_the_end(
    environment: str,
    models: list[str] | None,
    states: list[RollOutState],
    mesh: _Mesh,
    *,
    git: bool,
) -> None:
    """Lead roll-outs on until there is none, if waiting was asked for, and refuse those that went back."""
    from seatrial.errors import GateError

    back = [state for state in states if state.state == "rolled back"]
    said: dict[str, tuple[int, str]] = {}
    seen = time.monotonic()
    while (tried := [state for state in states if state.state == "rolling out"]) and mesh.every is not None:
        try:
            mesh.follow()
            time.sleep(mesh.every)
            states = _look_again(environment, models, tried, mesh, git=git)
        except (StoreError, ClusterError) as error:
            if time.monotonic() - seen > PATIENCE_SECONDS:
                raise
            console.print(
                f"[yellow]![/] {environment} is looked at again:", Text(error.message), soft_wrap=True
            )
            time.sleep(mesh.every)
            continue
        seen = time.monotonic()
        back += [state for state in states if state.state == "rolled back"]
        for state in states:
            if said.get(state.model) != (state.weight, state.state) or state.state != "rolling out":
                said[state.model] = (state.weight, state.state)
                _show_roll_out(environment, state)
    mesh.settle()
    if back:
        raise GateError(
            "; ".join(f"{one.model} {one.candidate[:12]} was rolled back: {one.why}" for one in back),
            remedy="Git is told on a branch: merge it. See: seatrial history MODEL",
        )


def _look_again(
    environment: str, models: list[str] | None, tried: list[RollOutState], mesh: _Mesh, *, git: bool
) -> list[RollOutState]:
    """Lead on what is rolled out; return where each stands, also what somebody else led to its end."""
    from seatrial.delivery.rollout import advance, how_it_ended
    from seatrial.errors import PointerMovedError

    try:
        states = advance(environment, models=models, git=git, see=mesh.predictors.see)
    except PointerMovedError:  # Somebody else, such as the cluster's own job, made the step.
        return tried
    seen = {(state.model, state.candidate) for state in states}
    ended = [how_it_ended(one, environment) for one in tried if (one.model, one.candidate) not in seen]
    return states + [one for one in ended if one is not None]


@app.command()
def rollout(model: Model, env: Where, as_json: Json = False) -> None:
    """Show where the roll-out of a model stands: which step, what the guards found, and what it waits for.

    Nothing is changed by this: `seatrial reconcile` leads a roll-out on.

    Example: `seatrial rollout flights --env production`
    """
    from seatrial.delivery.rollout import look

    state = look(_model_name(model), env)
    if as_json:
        print_json(state)
        return
    if state is None:
        console.print(f"Nothing is rolled out in {env}.")
        return
    step = f"answers {state.weight}% of the requests" if state.weight else "is in the shadow"
    console.print(
        f"{env} serves {state.serving[:12]} of {state.model}. {state.candidate[:12]} {step} since {state.since}, "
        f"and was asked {state.judged.rows:,} rows: {state.why.rstrip('.')}."
    )
    shown = Table("guard", "verdict", "value", "bound", "what")
    for verdict in state.judged.verdicts:
        cells = (verdict.check, verdict.outcome, f"{verdict.value:.4g}" if verdict.value is not None else "-")
        shown.add_row(*(Text(str(cell)) for cell in (*cells, f"{verdict.bound:.4g}", verdict.message)))
    for waiting in state.judged.waiting:
        guard, _, what = waiting.partition(": ")
        shown.add_row(guard, "", "", "", Text(f"waits: {what}"))
    console.print(shown)


@app.command()
def rollback(
    model: Model,
    env: Where,
    to: Annotated[
        str,
        typer.Option(
            help="Another bundle that it has served, by the beginning of its digest. [default: the one before]",
            show_default=False,
        ),
    ] = "",
    reason: Reason = "rolled back",
    key: Key = None,
    context: Context = "",
    as_json: Json = False,
) -> None:
    """Return to the bundle that an environment served before, at once; or take back one that is rolled out.

    Nobody else has to approve. It is recorded, and signed where the environment wants approvals. Git is
    told on a branch; until that is merged, nothing moves forward by itself. With --context, the cluster is
    asked first whether you may: nothing is moved that could not be told to it; and it ends when the pods
    serve it, with 18 if they do not come up.

    Example: `seatrial rollback flights --env production --reason "too many false alarms"`
    """
    from functools import partial

    from seatrial.bundle.signing import read_signer
    from seatrial.delivery.apply import apply_manifests, check_manifests, wait_for_pods
    from seatrial.delivery.rollback import roll_back
    from seatrial.promotion.environment import open_environment

    signer = None if key is None else read_signer(key)
    cluster = (open_environment(env), context)
    first = partial(check_manifests, *cluster) if context else None
    said: list[str] = []
    then = (lambda files: said.append(apply_manifests(*cluster, files))) if context else None
    name = _model_name(model)
    done = roll_back(name, env, to=to, reason=reason, signer=signer, first=first, then=then)
    mesh = _open_mesh(env, [name], context, in_cluster=False, every=LOOK_SECONDS)
    mesh.quiet = True
    if as_json:
        print_json({"digest": done.digest, "generation": done.generation, "branch": done.branch})
    else:
        console.print(
            f"[green]✓[/] {env} serves {done.digest[:12]} again, instead of {str(done.previous)[:12]} "
            f"(generation {done.generation})."
        )
        if done.branch is not None:
            console.print(f"Git says so on the branch [bold]{done.branch.name}[/]: merge it.")
        for line in said[-1:]:
            console.print(line.rstrip(), markup=False)
    mesh.settle()
    if context:
        wait_for_pods(open_environment(env), [name], context)
