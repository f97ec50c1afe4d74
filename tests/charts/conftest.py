"""Every test of this folder that renders a chart wants helm, and skips with the reason where there is none."""

from __future__ import annotations

import pytest

from support.charts import Case, Object, cases, helm_command, rendered


@pytest.fixture(scope="session")
def helm() -> str:
    """The helm command; skips where there is none."""
    command = helm_command()
    if command is None:
        pytest.skip("no helm on PATH; tool-versions.env says which version, and $HELM may say where it is")
    return command


@pytest.fixture(params=cases(), ids=str)
def case(request: pytest.FixtureRequest, helm: str) -> Case:
    """Each chart with each of its values files."""
    found: Case = request.param
    return found


@pytest.fixture
def objects(case: Case) -> list[Object]:
    """What the chart makes of these values."""
    return rendered(case)
