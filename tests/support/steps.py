"""Commands as ``kfp.local`` runs them for a component."""

import json

from kfp import dsl


@dsl.component(base_image="python", install_kfp_package=False)
def step(body: str) -> None:
    """Say which process this is and which its parent, and then do what the argument says."""
    import os

    print("step", os.getpid(), os.getppid(), flush=True)
    exec(body)  # noqa: S102 -- a test's own words


def step_command(body: str) -> list[str]:
    """Return the command of a component that says its process and its parent's, and then does this."""
    container = step.component_spec.implementation.container
    inputs = {"inputs": {"parameterValues": {"body": body}}, "outputs": {"outputFile": "/dev/null"}}
    arguments = [json.dumps(inputs) if part == "{{$}}" else part for part in container.args]
    return [*container.command, *arguments]
