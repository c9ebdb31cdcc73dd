"""The configuration of a replayer, which travels as JSON in the arguments of its node."""

from __future__ import annotations

import msgspec

ROS_CLOCK = "dora/ros_clock"
"""The output of a replayer with the messages of /clock."""


class ReplayConfig(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What to replay, and how; times in ns since 1970."""

    files: list[str]
    topics: list[str]
    speed: float = 1.0
    """0 does not wait."""
    start: int | None = None
    end: int | None = None
    loop: bool = False
    paused: bool = False
    step: bool = False
    """Wait after each message until all nodes sleep."""
    recorded_clock: bool = False
    """Whether messages carry their recorded times."""
    ticks: dict[str, int] = {}
    checked: list[str] = []
    """Topics of live nodes whose messages are compared."""
    tolerance: float = 0.0
    tolerances: dict[str, float] = {}
    ignore: list[str] = []
    ros_clock: bool = False
    """Whether the recorded time is sent, too, for /clock of ROS 2."""
    remap: dict[str, str] = {}
    """Other names of recorded topics; all other fields have the new ones."""
    control: str = ""
    """The socket of the command that has started the replay."""


def encode(config: ReplayConfig) -> str:
    """Return the configuration as one word."""
    return msgspec.json.encode(config).decode()


def decode(text: str) -> ReplayConfig:
    """Return the configuration in a word. Raises ValueError."""
    return msgspec.json.decode(text, type=ReplayConfig)
