"""The two lists of suites: what a change must pass, and what hunts for rare faults."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """A command that tests something."""

    name: str
    command: list[str]
    expected_s: int
    """What it takes on two processors, in seconds."""
    limit_s: int
    """After this time it is ended, and has failed."""
    pytest: bool = True
    """The command gives `PYTEST_ARGS` to pytest, so its tests are counted and looked at twice."""
    may_be_empty: bool = False
    env: dict[str, str] = field(default_factory=dict)


def _make(
    name: str,
    target: str,
    expected_s: int,
    *,
    pytest: bool = True,
    may_be_empty: bool = False,
    env: dict[str, str] | None = None,
) -> Suite:
    command = ["make", *target.split()]
    limit_s = max(600, 3 * expected_s)
    return Suite(name, command, expected_s, limit_s, pytest, may_be_empty, env or {})


GATE = [
    _make("native", "native", 10, pytest=False, env={"DORAD_NATIVE": "1"}),
    # Each of the two uses one processor.
    _make("lint", "-j2 --output-sync=target lint bytecode", 70, pytest=False),
    _make("hub", "hub", 60),
    _make("test", "test", 500),
    _make("examples", "test-examples", 180),
    _make("pure", "test-pure", 120),
    _make("ros2", "ros2-part", 90),
    _make("browser", "browser", 60),
    _make("robot", "robot", 150),
    _make("demo-fleet", "demo-fleet", 40, pytest=False),
]

NIGHTLY = [
    _make("native", "native", 10, pytest=False, env={"DORAD_NATIVE": "1"}),
    _make("test-long", "test-long", 900),
    _make("unsteady", "test-unsteady", 60, may_be_empty=True),
    _make("ros2", "ros2", 300),
    _make("hwtest", "hwtest-long", 5400),
    _make("hwtest-alone", "hwtest-alone", 60),
    _make("sanitize", "sanitize", 900),
    # A second look would hide what it is for.
    _make("steady", "steady", 600, pytest=False),
    _make("explore", "explore", 1200),
    _make("torture", "torture", 150, pytest=False),
    _make("faults", "faults", 300, pytest=False),
    _make("model", "model", 60, pytest=False),
    _make("litmus", "litmus", 60, pytest=False),
    _make("fuzz", "fuzz", 300, pytest=False),
    _make("mutants", "mutants", 900, pytest=False),
    _make("wheels", "wheels check-wheels", 600),
]

LISTS = {"gate": GATE, "nightly": NIGHTLY}
