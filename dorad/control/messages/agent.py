"""What a coordinator and the agent of a robot send each other.

The agent connects; then the coordinator is the client and the agent the server of the control API:
it answers `AGENT_METHODS`, and passes the methods of `METHODS` on to the robot's daemon.

`epoch` is the number of a coordinator's term, `generation` counts the changes of one share. An
agent refuses what is older than what it has, and a term that is too far ahead of its last one.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import msgspec

from dorad.control.messages.base import Nothing, Struct
from dorad.control.messages.dataflows import DataflowState
from dorad.control.messages.method import CallMethod, StreamMethod, by_name, defined_in
from dorad.control.messages.releases import ReleaseOrder, ReleaseState
from dorad.control.messages.shares import LinkPeer, Share
from dorad.dataflow.secrets import MAX_SECRET, NAME_PATTERN
from dorad.int64 import Int64

Epoch = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""The number of a coordinator's term."""

Generation = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""Counts the changes of one share."""

MAX_SEALED = 2 * MAX_SECRET
"""Characters of a sealed secret: its value, 48 bytes of sealing, and a third for base64."""

DataflowName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class ShareContent(Struct):
    """What a robot needs to start its share of a dataflow, as in `dataflow.start`."""

    uuid: str
    """Of the dataflow, the same on all its machines."""
    descriptor: dict[str, Any]
    """Of the whole dataflow."""
    path: str
    """Absolute path of the file where it was started. Relative paths in it are relative to its
    folder, or to a node's `deploy.working_dir`, on the robot."""
    share: Share
    """Without `tls`, which the agent knows."""
    env: dict[str, str] = {}
    uv: bool = False
    allow_shell: bool = False
    exit_when_nodes_finish: bool | None = None
    params: dict[str, dict[str, Any]] = {}
    """Parameters to begin with, by node and key."""


class ShareSet(Struct):
    """An order about one dataflow. The agent stores it before it answers."""

    epoch: Epoch
    generation: Generation
    dataflow: DataflowName
    """The name of the dataflow, unique in the fleet."""
    enabled: bool
    """Whether the share is ordered to run."""
    content: ShareContent
    hold: float | None = None
    """Seconds to wait for `share.open` before the first message; then the start fails. None starts
    at once, as after a reboot."""
    grace: float | None = None
    """For its stop: seconds until SIGTERM."""
    force: bool = False
    """For its stop: SIGKILL at once."""
    alive: list[str] = []
    """For a change: nodes that run after it, see `Update`."""


class ShareRef(Struct):
    """One share, by the name of its dataflow."""

    epoch: Epoch
    generation: Generation
    dataflow: DataflowName


ShareStatus = Literal[
    "pending", "starting", "ready", "running", "stopping", "stopped", "finished", "failed"
]


class ShareState(Struct):
    """What a robot reports of a share."""

    dataflow: DataflowName
    uuid: str
    epoch: Epoch
    generation: Generation
    """Of what it has carried out, or is carrying out."""
    status: ShareStatus
    """`pending`: it will be tried again, see `reason`. `ready`: every node waits for `share.open`
    and every link is up. `stopped`, `finished` and `failed` are final for this generation."""
    since: float
    """When `status` changed, by the robot's clock."""
    reason: str = ""
    links: dict[str, LinkPeer] = {}
    """The link to each other machine of the dataflow."""
    outcome: DataflowState | None = None
    """The results, once it has ended."""


SecretName = Annotated[str, msgspec.Meta(pattern=rf"^(?:{NAME_PATTERN})$(?!\n)")]

SecretTarget = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
"""Whose secret it is: `ROBOT`, `KEY=VALUE` for robots with a label, or `*` for all."""


class SealedSecret(Struct):
    """A secret that only one robot can unseal. Its value is bound to robot, name and version."""

    name: SecretName
    version: Generation
    target: SecretTarget
    """Whose secret it is; the robot only keeps and reports it."""
    sealed: Annotated[str, msgspec.Meta(max_length=MAX_SEALED)]
    """HPKE with X25519, HKDF-SHA256 and ChaCha20-Poly1305, in base64."""


FILES_PATH = "/files"
"""Where a robot opens a connection for files."""
FILES_TICKET = "Files-Ticket"
"""The header with the ticket of the request for that connection."""


class FilesFetch(Struct):
    """Ask a robot for a connection over which it gets the files of a release, as over SSH."""

    release: str
    """One that it was ordered, and whose files it lacks."""
    ticket: str
    """Which it shows when it connects."""


class SecretsChange(Struct):
    """Store secrets and remove others. The agent stores each before it answers."""

    epoch: Epoch
    puts: list[SealedSecret] = []
    removes: list[SecretName] = []


class HeldSecret(Struct):
    """Which value of a secret a robot has."""

    version: Generation
    target: SecretTarget


class SecretsHeld(Struct):
    """The secrets that a robot can give to its nodes."""

    key: Annotated[str, msgspec.Meta(max_length=100)] = ""
    """Its public key for sealing (X25519, base64); empty from an agent that knows no secrets."""
    held: dict[SecretName, HeldSecret] = {}
    refused: dict[str, str] = {}
    """Why others cannot be used, by name."""


MAX_PATTERNS = 100
PATTERN = r"[^/\s?\[\]]{1,100}"
"""The name of a dataflow, node or machine; `*` in it stands for any characters."""

NodePatterns = Annotated[
    list[Annotated[str, msgspec.Meta(pattern=f"^{PATTERN}/{PATTERN}$(?!\n)")]],
    msgspec.Meta(max_length=MAX_PATTERNS),
]
"""Each is `DATAFLOW/NODE`, in which `*` stands for any characters."""


class Accepts(Struct):
    """What a robot takes from its coordinator: the section `[agent]` of its dorad.toml."""

    inline: bool = True
    """Whether it runs dataflows that were started from a file, which nobody has signed."""
    nodes: NodePatterns | None = None
    """Those that may run there; None: all."""
    params: NodePatterns | None = None
    """The nodes whose parameters a coordinator may set; None: all."""
    max_param: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] | None = None
    """Bytes of the value of a parameter, as JSON; None: no limit of its own."""
    peers: (
        Annotated[
            list[Annotated[str, msgspec.Meta(pattern=f"^{PATTERN}$(?!\n)")]],
            msgspec.Meta(max_length=MAX_PATTERNS),
        ]
        | None
    ) = None
    """The machines that may have nodes of its dataflows, with `*` as above; None: all."""
    networks: (
        Annotated[
            list[Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f.:]{1,45}/[0-9]{1,3}$(?!\n)")]],
            msgspec.Meta(max_length=MAX_PATTERNS),
        ]
        | None
    ) = None
    """Where its links may connect to: `10.1.0.0/16`; None: everywhere."""
    problem: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    """A mistake in the file. As long as it is there, the robot takes nothing."""


class Revocation(Struct):
    """That a robot, an operator or a token was revoked, or a robot's certificates replaced."""

    owner: Annotated[str, msgspec.Meta(max_length=200)]
    """Such as `robot arm1`."""
    at: float
    """By the coordinator's clock."""


class Attach(Struct):
    """The coordinator's first request to an agent."""

    coordinator: str
    """A name for messages: `host:pid`."""
    epoch: Epoch
    audit: str
    """Head of the audit. An agent that has kept none yet keeps it."""
    time: float
    pause: float = 0.0
    """Seconds over which the whole fleet spreads its tries after this connection has ended. Agents
    wait at least as long between tries as they do without it, and at most two minutes."""
    term: str = ""
    """A random text that no other term has: two coordinators may have one number, for example when
    one of them runs on a copy of the other one's disk. Empty from versions without it."""
    takes_over: bool = False
    """An operator says that this robot shall obey, whatever term it has obeyed before."""


class Attached(Struct):
    """The agent's first answer."""

    robot: str
    version: str
    boot_id: str
    time: float
    epoch: Epoch
    """Of the last coordinator that it has obeyed."""
    audit: str
    """The head of the audit that an earlier coordinator sent it; empty if none did."""
    arch: str
    cores: float
    memory: Int64
    """Bytes."""
    shares: list[ShareState]
    """All of them."""
    releases: list[ReleaseState] = []
    """Of all dataflows that come from releases."""
    python: str = ""
    """`3.13`: dorad's, which nodes use; empty if the agent does not report it."""
    glibc: str = ""
    """`2.41`; empty for another C library."""
    revocations: Annotated[list[Revocation], msgspec.Meta(max_length=1000)] = []
    """The newest that an earlier coordinator sent it, with the head of the audit."""
    machine_id: str = ""
    """Of its installation; empty if the agent does not report it, or if each boot has another."""
    groups: bool = False
    """Whether the agent obeys the group of an order for a release. Versions before ignore it: they
    would run the whole release alone."""
    arms: bool = False
    """Whether the agent can reserve a switch. Versions before report no robot as armed."""
    secrets: SecretsHeld = msgspec.field(default_factory=SecretsHeld)
    accepts: Accepts = msgspec.field(default_factory=Accepts)
    """Versions before check their file at each order, and do not report it."""


class Remember(Struct):
    """Keep the head of the audit, and the newest revocations."""

    audit: str
    known: str | None = None
    """The head that the agent has and that the coordinator's audit continues. The agent keeps its
    own if it has another one, so that a part of the audit that was cut off stays known. None from
    versions without it."""
    revocations: list[Revocation] = []


class Remembered(Struct):
    """The robot's clock, and the head of the audit that it has kept until now."""

    time: float
    audit: str


class AgentWatch(Struct):
    """Report what changes, at most once a second, and at least every `heartbeat` seconds."""

    heartbeat: float


class AgentReport(Struct):
    """A heartbeat, with the shares that have changed since the last report."""

    time: float
    shares: list[ShareState] = []
    removed: list[str] = []
    """Names of dataflows that the robot no longer has a share of."""
    releases: list[ReleaseState] = []
    """Those that have changed since the last report; one that was forgotten is reported once, with
    an empty `release` and phase `confirmed`."""
    daemon: str = ""
    """Why the robot's daemon cannot be used; empty if it can."""
    room: Int64 | None = None
    """Bytes that are free on the disk of its releases; None if they are unknown."""
    warnings: list[str] = []
    """What an operator should know of the robot, such as a disk that is getting full."""
    accepts: Accepts | None = None
    """None: as before."""


class Csr(Struct):
    """A request for a certificate, for a key that never leaves the robot (PEM)."""

    csr: str


class Certificates(Struct):
    """A new certificate with its intermediates, and the authority of the fleet (PEM)."""

    chain: str
    authority: str


class HandOver(Struct):
    """Trust another authority beside the present one, which has signed it."""

    root: str
    """The certificate of the new authority (PEM)."""
    issuer: str
    """What it has signed to sign for robots: links trust that (PEM)."""
    signature: str
    """A certificate of the new authority's key by the present authority (PEM)."""
    finished: bool = False
    """Whether the old authority is to be dropped."""
    cancelled: bool = False
    """Whether this one is to be dropped instead."""


class Trust(Struct):
    """Which authorities a robot trusts."""

    trusted: Annotated[list[str], msgspec.Meta(max_length=16)]
    """SHA-256 of each, in hexadecimal digits, the newest last."""
    certified: bool
    """Whether its certificate is of the newest."""


AGENT_ATTACH = CallMethod(
    "agent.attach",
    "coordinator",
    Attach,
    Attached,
    "Begin a connection; refused for an old epoch.",
    report=True,
)
AGENT_REMEMBER = CallMethod(
    "agent.remember",
    "coordinator",
    Remember,
    Remembered,
    "Keep the head of the audit; tell the time.",
)
AGENT_WATCH = StreamMethod(
    "agent.watch", "coordinator", AgentWatch, AgentReport, "Report what changes.", report=True
)
AGENT_RENEW = CallMethod(
    "agent.renew",
    "coordinator",
    Nothing,
    Csr,
    "Make a new key, and return a request for a certificate.",
)
AGENT_CERTIFY = CallMethod(
    "agent.certify", "coordinator", Certificates, Nothing, "Use a new certificate."
)
AGENT_HANDOVER = CallMethod(
    "agent.handover",
    "coordinator",
    HandOver,
    Trust,
    "Trust the authority that follows, or only that.",
)
AGENT_SECRETS = CallMethod(
    "agent.secrets", "coordinator", SecretsChange, SecretsHeld, "Store and remove secrets."
)
AGENT_FETCH = CallMethod(
    "agent.fetch",
    "coordinator",
    FilesFetch,
    Nothing,
    "Open a connection for the files of a release that was ordered.",
)
SHARE_SET = CallMethod(
    "share.set", "coordinator", ShareSet, ShareState, "Store a share and carry it out."
)
SHARE_OPEN = CallMethod(
    "share.open", "coordinator", ShareRef, ShareState, "Open the start barrier of a share."
)
SHARE_REMOVE = CallMethod(
    "share.remove", "coordinator", ShareRef, Nothing, "Forget a share that does not run."
)
RELEASE_ORDER = CallMethod(
    "release.order", "coordinator", ReleaseOrder, ReleaseState, "Store the order for a release."
)

AGENT_METHODS = by_name(defined_in(sys.modules[__name__]))
"""The methods that an agent answers itself."""
