"""How an object store on S3 is reached: by the usual ``AWS_*`` variables, or by those of one environment alone.

Environments may have stores of their own, and a promotion reaches two at once. So the variables of one
environment are the usual ones with its name before them: ``SEATRIAL_STAGING_AWS_ACCESS_KEY_ID``. What it has
counts before the usual one, and what it has not is the usual one; its keys are taken together. Secrets are
in variables alone: neither in git nor in what is printed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from seatrial.errors import UsageError

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
TOKEN = "AWS_SESSION_TOKEN"
ENDPOINT = "AWS_ENDPOINT_URL"
ALLOW_HTTP = "AWS_ALLOW_HTTP"
VARIABLES = (*KEYS, TOKEN, ENDPOINT, "AWS_REGION", ALLOW_HTTP)
"""What an environment may have of its own."""
_ENDPOINT_OF_S3 = "AWS_ENDPOINT_URL_S3"
_TRUE = ("1", "true", "yes", "on", "y")


@dataclass(frozen=True)
class StoreAccess:
    """What a store on S3 is reached with.

    Attributes:
        owner: The environment whose store it is; empty where it is nobody's in particular.
        settings: Its own variables by their usual names, which count before those of the process.
    """

    owner: str = ""
    settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def variables(self) -> dict[str, str]:
        """Its own variables by their usual names, for a process or a library that knows only one store."""
        return dict(self.settings)

    @property
    def allows_http(self) -> bool | None:
        """Whether the store may be asked without TLS; None: as ``$AWS_ALLOW_HTTP`` says."""
        said = self.variables.get(ALLOW_HTTP)
        return None if said is None else said.lower() in _TRUE

    @property
    def shown(self) -> str:
        """The store, as messages call it."""
        return f"store of {self.owner}" if self.owner else "store"

    @property
    def remedy(self) -> str:
        """What to do where the store does not answer, or refuses."""
        endpoint, http, key, secret = (self._name(name) for name in (ENDPOINT, ALLOW_HTTP, *KEYS))
        own = ""
        if self.owner and key in KEYS:
            names = " and ".join(own_name(self.owner, name) for name in (ENDPOINT, *KEYS))
            own = f" If {self.owner} has a store or keys of its own, set {names}."
        return (
            f"Check that the {self.shown} answers at {endpoint} (http:// wants {http}=true, too), that the bucket is "
            f"there, and that {key} and {secret} may use it; then run it again.{own}"
        )

    def _name(self, variable: str) -> str:
        return own_name(self.owner, variable) if variable in self.variables else variable


USUAL = StoreAccess()


def own_name(environment: str, variable: str) -> str:
    """Return what a variable is called that counts for one environment."""
    return f"SEATRIAL_{environment.upper()}_{variable}"


def endpoint_of(environment: str) -> str:
    """Return the address of the server that has an environment's store; empty where that is Amazon's own."""
    return os.environ.get(own_name(environment, ENDPOINT)) or os.environ.get(ENDPOINT, "")


def access_of(environment: str) -> StoreAccess:
    """Return how an environment's store is reached, as the process's variables say.

    Raises:
        UsageError: if it has one key without the other, a variable of its own means nothing, or a usual one would be
            taken for one of its own.
    """
    prefix = own_name(environment, "")
    own = {
        name.removeprefix(prefix): value
        for name, value in sorted(os.environ.items())
        if name.startswith(f"{prefix}AWS_")
    }
    if unknown := sorted(set(own) - set(VARIABLES)):
        raise UsageError(
            f"{prefix}{unknown[0]} means nothing. With {prefix} before it, there may be {', '.join(VARIABLES)}."
        )
    given = [name for name in KEYS if own.get(name)]
    if given and len(given) < len(KEYS):
        (missing,) = set(KEYS) - set(given)
        raise UsageError(
            f"{prefix}{missing} must be set, as {prefix}{given[0]} is: the keys of {environment} are taken together.",
            remedy=f"Set both, or neither where {KEYS[0]} and {KEYS[1]} are those of {environment}, too.",
        )
    for usual, mine in ((TOKEN, KEYS[0]), (_ENDPOINT_OF_S3, ENDPOINT)):
        if os.environ.get(usual) and mine in own and usual not in own:
            raise UsageError(
                f"{usual} is set, and would count for the store of {environment} beside its own {prefix}{mine}.",
                remedy=f"Unset it (unset {usual}), and give the other environment variables of its own.",
            )
    return StoreAccess(environment, tuple(own.items()))
