"""What clients and a coordinator send each other about secrets. A value is sealed by the client."""

from typing import Annotated, Literal

import msgspec

from dorad.control.messages import CallMethod, Struct
from dorad.control.messages.agent import MAX_SEALED, Generation, SecretName, SecretTarget
from dorad.int64 import Int64


class SecretRef(Struct):
    """A secret, for one target or for all."""

    name: SecretName
    target: SecretTarget | None = None


class SecretQuery(Struct):
    """Select secrets."""

    name: SecretName | None = None
    nodes: bool = False
    """Whether robots are asked which nodes run with an earlier value."""


class SecretRecipients(Struct):
    """The robots that a value is to be sealed for now."""

    version: Generation
    """For the new value."""
    keys: dict[str, str]
    """The public key of each."""
    lacking: dict[str, str]
    """Robots of the target that it cannot be sealed for, with the reason."""
    others: dict[str, str]
    """Robots that have a more precise target, whose value they keep; they have a key, too."""


class SecretSet(Struct):
    """A new value. A client may send it in parts, robot by robot, under one version."""

    name: SecretName
    target: SecretTarget
    version: Generation
    keys: dict[str, str]
    """The public key that it was sealed for, by robot."""
    sealed: dict[str, Annotated[str, msgspec.Meta(max_length=MAX_SEALED)]]
    """The sealed value, by robot."""


RobotSecretState = Literal["held", "waiting", "missing", "refused", "unknown"]
"""`held`: the robot has it. `waiting`: it gets it once it can be reached. `missing`: it was not
sealed for this robot. `refused`: the robot cannot use it. `unknown`: the robot has one that the
coordinator does not know."""


class RobotSecret(Struct):
    """A secret as one robot has it."""

    robot: str
    state: RobotSecretState
    reason: str = ""
    old_nodes: list[str] = []
    """`dataflow/node` of the nodes that run with an earlier value, if that was asked for."""


class Secret(Struct):
    """A secret, without its value."""

    name: str
    target: str
    """Empty for one that only robots know."""
    version: Int64
    set_at: float
    set_by: str
    robots: list[RobotSecret]
    """Those that it is for now."""


class SecretList(Struct):
    """The selected secrets, sorted by name and target."""

    secrets: list[Secret]
    silent: dict[str, str] = {}
    """Robots that did not say which nodes run with an earlier value, with the reason."""


SECRET_LIST = CallMethod("secret.list", "viewer", SecretQuery, SecretList, "List secrets.")
SECRET_RECIPIENTS = CallMethod(
    "secret.recipients",
    "operator",
    SecretRef,
    SecretRecipients,
    "Return the robots that a value is to be sealed for.",
)
SECRET_SET = CallMethod(
    "secret.set", "operator", SecretSet, SecretList, "Store a sealed value for robots."
)
SECRET_REMOVE = CallMethod(
    "secret.remove", "operator", SecretRef, SecretList, "Remove a secret from its robots."
)
