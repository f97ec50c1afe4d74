"""``seatrial serve``: answer requests with the bundle that an environment names; ``wait``: until it names one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from seatrial.cli.app import Environment, Model, WorkspaceOption, app, console, place_of, workspace_of

Bundle = Annotated[
    str | None,
    typer.Option(help="Serve this bundle, by the beginning of its digest, whatever the environment names."),
]
Host = Annotated[str, typer.Option(help="Address to listen at.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")]
GrpcPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Port to listen at for gRPC; 0 takes a free one. [default: no gRPC]",
        show_default=False,
    ),
]
LogFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder on a local disk for the feedback log. "
        "[default: serving/MODEL/feedback-log in the workspace]",
        show_default=False,
    ),
]
CollectLogs = Annotated[
    bool,
    typer.Option(
        "--collect-logs",
        help="Also ship what servers that are gone left in the folders beside the log's own.",
    ),
]
AddressFile = Annotated[
    Path | None, typer.Option(help="File to write the server's address to.", show_default=False)
]
ShipEvery = Annotated[
    float, typer.Option(min=0.1, help="Seconds between two moves of feedback into the tables.")
]
Drain = Annotated[
    float,
    typer.Option(
        min=0,
        help="Seconds to go on answering after SIGTERM, each answer with the request to connect anew.",
    ),
]
ExitWithParent = Annotated[
    bool, typer.Option("--exit-with-parent", help="Stop when the process that started this one has ended.")
]

HangLimit = Annotated[
    float,
    typer.Option(
        min=10,
        help="Seconds that a prediction may hold up all others; then the server ends, with exit code 70.",
    ),
]
OfPredictor = Annotated[
    Literal["main", "candidate"] | None,
    typer.Option(
        "--predictor",
        help="Which predictor of a SeldonDeployment this is, `main` or `candidate`: a mesh splits the requests of a "
        "roll-out. [default: this server splits them]",
        show_default=False,
    ),
]


@app.command()
def serve(
    model: Model,
    env: Environment = "local",
    bundle: Bundle = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    grpc_port: GrpcPort = None,
    log_folder: LogFolder = None,
    collect_logs: CollectLogs = False,
    address_file: AddressFile = None,
    ship_every: ShipEvery = 10.0,
    drain: Drain = 0.0,
    exit_with_parent: ExitWithParent = False,
    hang_limit: HangLimit = 30.0,
    predictor: OfPredictor = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Serve a model over the Open Inference Protocol v2 and Seldon's protocol until Ctrl-C.

    The bundle that the environment names is served, and a newer one takes its place without
    dropping a request. Predictions and outcomes go into the feedback tables.

    Example: `seatrial serve flights --port 8080`
    """
    parent = (
        os.getppid() if exit_with_parent else None
    )  # Asked at once: it may end while the model is loaded.
    import logging

    from seatrial.server import ServeOptions
    from seatrial.server import serve as run

    place, trust = place_of(env, workspace)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    run(
        ServeOptions(
            model=model,
            workspace=place,
            trust=trust,
            environment=env,
            bundle=bundle,
            host=host,
            port=port,
            grpc_port=grpc_port,
            log_folder=log_folder,
            collect_logs=collect_logs,
            address_file=address_file,
            ship_every=ship_every,
            drain=drain,
            parent=parent,
            hang_limit=hang_limit,
            predictor=predictor or "",
        ),
        announce=lambda line: console.print(line, soft_wrap=True),
    )


@app.command()
def wait(
    model: Model,
    env: Environment = "local",
    limit: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which to give up. [default: never]")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Wait until an environment serves a bundle of a model. Exits with 10 if it does not in time.

    Example: `seatrial wait flights --env test --limit 600`
    """
    from seatrial.promotion import wait_for_bundle

    pointer = wait_for_bundle(
        workspace_of(env, workspace),
        env,
        model,
        report=lambda line: console.print(line, soft_wrap=True),
        limit_seconds=limit,
    )
    console.print(f"The environment {env!r} serves bundle {str(pointer.digest)[:12]} of {model!r}.")
