"""Where a chart may break a rule of the policy tests, and why: the one list.

An exception that is needed no more fails a test, so the list stays short.
"""

from __future__ import annotations

EXCEPTIONS: dict[tuple[str, str], str] = {
    # (rule, place): the reason. A place is what the rule names: object, or object and container.
    (
        "has_probes",
        "Deployment/ml-pipeline-scheduledworkflow/scheduled-workflow-controller",
    ): "it has no port that a probe could ask; it ends by itself when it cannot go on, and is started again",
    (
        "grants_no_way_into_pods",
        "Role/workflow-controller",
    ): "it ends the steps of a run that was stopped by a signal from within their pods",
}
