"""Where a chart may break a rule of the policy tests, and why: the one list.

An exception that is needed no more fails a test, so the list stays short.
"""

from __future__ import annotations

EXCEPTIONS: dict[tuple[str, str], str] = {
    # (rule, place): the reason. A place is what the rule names: object, or object and container.
}
