"""What the benchmark and the processes that simulate robots send each other, as JSON lines."""

from typing import Literal

from msgspec import Struct


class Fleet(Struct, frozen=True):
    """The first line to a process: its robots, and where the coordinator is."""

    robots: list[str]
    """Their ids; the certificate and the key of each lie in `folder`."""
    address: str
    port: int
    folder: str


class Order(Struct, frozen=True):
    """Something that robots shall do; answered by `Counts`."""

    act: Literal["count", "connect", "drop", "churn", "mute", "babble", "calm"]
    """`drop`: abort all connections at once, and connect again as agents do. `churn`: come and go
    at random. `mute`: stop reading. `babble`: send nonsense. `calm`: stop all of these."""
    share: float = 1.0
    """Which part of the robots, from the first."""


class Counts(Struct, frozen=True):
    """The state of all robots of a process. Counts are since its start."""

    robots: int
    attached: int
    """Robots that report to the coordinator now."""
    tries: int
    """Connections that were begun."""
    healthy: int
    """Robots without a fault that report now."""
    healthy_tries: int
    """Connections that robots without a fault have begun."""
    sent: int
    """Bytes on the wire, with TLS, of connections that are open."""
    received: int
    running: int
    """Shares that run, of all robots."""
    refusals: dict[str, int]
    """How often a connection ended so, by the reason."""
    last_attached: float
    """When a robot last began to report, on the monotonic clock of the machine."""
