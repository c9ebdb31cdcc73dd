"""Every measured dataflow as data, with its payload sizes and rates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

SIZES = (8, 4 << 10, 64 << 10, 1 << 20, 8 << 20)
NESTED = (80, 100, 44_000, 1 << 20)
"""Bytes of a struct of ten numbers, a text, a list of 1,000 boxes, a struct with a picture."""
GROUPS = ("roundtrip", "nested", "oneway", "burst", "fanout", "cpu", "start", "floor")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure. ``seconds`` ends a step of one size before it has reached its count."""

    sizes: tuple[int, ...] = SIZES
    rounds: int = 5
    round_trips: Mapping[int, int] = field(
        default_factory=lambda: dict(zip(SIZES, (2000, 2000, 2000, 800, 100), strict=True))
    )
    spaced: Mapping[int, int] = field(
        default_factory=lambda: dict(zip(SIZES, (250, 250, 250, 250, 40), strict=True))
    )
    burst: Mapping[int, int] = field(
        default_factory=lambda: dict(zip(SIZES, (20_000, 10_000, 3_000, 200, 24), strict=True))
    )
    seconds: float = 1.5
    stream_seconds: float = 8.0
    starts: int = 2
    quick: bool = False


def quick_plan() -> Plan:
    """Return one short round for continuous integration."""
    sizes = (8, 64 << 10, 1 << 20)
    return Plan(
        sizes=sizes,
        rounds=1,
        round_trips=dict.fromkeys(sizes, 300),
        spaced=dict.fromkeys(sizes, 50),
        burst=dict(zip(sizes, (4_000, 500, 50), strict=True)),
        seconds=0.5,
        stream_seconds=1.0,
        starts=1,
        quick=True,
    )


@dataclass(frozen=True, slots=True)
class Wire:
    """One input: where it comes from and, if not the defaults, its queue."""

    source: str
    queue_size: int | None = None
    queue_policy: str | None = None


@dataclass(frozen=True, slots=True)
class BenchNode:
    """One node of a measured dataflow: a file in ``nodes/``, its wires, its settings."""

    id: str
    file: str
    inputs: Mapping[str, Wire] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def in_c(self) -> bool:
        """Whether it must be compiled."""
        return self.file.endswith(".c")


@dataclass(frozen=True, slots=True)
class Flow:
    """One dataflow to run.

    ``spin=False`` sets ``spin_us: 0``, and ``native=False`` selects the data plane in pure Python:
    only our nodes know these. ``quick`` flows are those of a quick run.
    """

    measure: str
    group: str
    kind: str
    nodes: tuple[BenchNode, ...]
    deadline_s: float
    spin: bool = True
    quick: bool = True
    native: bool = True

    @property
    def only_ours(self) -> bool:
        """Whether the peers cannot run it."""
        return not (self.spin and self.native) or any(node.in_c for node in self.nodes)


def gap(size: int) -> float:
    """Return the seconds between spaced messages: 4 ms, or 50 ms where 4 ms would fill a queue."""
    return 0.004 if size <= 1 << 20 else 0.05


def steps(plan: Plan, counts: Mapping[int, int]) -> dict[str, str]:
    """Return the environment with the sizes to send, their counts and their distance."""
    return {
        "BENCH_SIZES": ",".join(str(size) for size in plan.sizes),
        "BENCH_COUNTS": ",".join(str(counts[size]) for size in plan.sizes),
        "BENCH_GAPS_S": ",".join(str(gap(size)) for size in plan.sizes),
        "BENCH_STEP_SECONDS": str(plan.seconds),
    }


def round_trip(
    plan: Plan,
    measure: str,
    *,
    source: str = "heap",
    answer: str = "short",
    spin: bool = True,
    metadata: bool = False,
    languages: tuple[str, str] = ("py", "py"),
    group: str = "roundtrip",
) -> Flow:
    both = {"BENCH_METADATA": "1" if metadata else "0"}
    env = steps(plan, plan.round_trips) | both | {"BENCH_SOURCE": source}
    ping = BenchNode("ping", f"ping.{languages[0]}", {"pong": Wire("pong/pong")}, ("ping",), env)
    answering = both | {"BENCH_ANSWER": answer, "BENCH_SOURCE": source}
    pong = BenchNode(
        "pong", f"pong.{languages[1]}", {"ping": Wire("ping/ping")}, ("pong",), answering
    )
    return Flow(measure, group, "round trip", (ping, pong), 90.0, spin)


LANGUAGES = {"": ("py", "py"), ", C and C": ("c", "c"), ", C and Python": ("c", "py")}
"""How a measure's name says in what its two nodes are written."""


def nested(plan: Plan) -> Iterator[Flow]:
    """Yield round trips of what most nodes send, and of bare arrays of as many bytes."""
    trips = dict.fromkeys(NESTED, min(plan.round_trips.values()) if plan.quick else 1000)
    sized = replace(plan, sizes=NESTED, round_trips=trips)
    for name, languages in LANGUAGES.items():
        for source, what in (("nested", "nested"), ("heap", "bare")):
            yield round_trip(
                sized,
                f"round trip, {what}{name}",
                source=source,
                group="nested",
                languages=languages,
            )


def spaced(plan: Plan, measure: str, group: str, receivers: int) -> Flow:
    sender = BenchNode("sender", "spaced.py", {}, ("data",), steps(plan, plan.spaced))
    wire = Wire("sender/data", queue_size=100)
    sinks = (BenchNode(f"sink_{i}", "latency.py", {"data": wire}) for i in range(receivers))
    return Flow(measure, group, "one-way", (sender, *sinks), 60.0)


def burst(plan: Plan, measure: str, group: str, receivers: int, policy: str | None) -> Flow:
    env = steps(plan, plan.burst) | {"BENCH_RECEIVERS": str(receivers)}
    acks = {f"ack_{i}": Wire(f"sink_{i}/ack") for i in range(receivers)}
    sender = BenchNode("sender", "burst.py", acks, ("data",), env)
    wire = Wire("sender/data", queue_size=1000, queue_policy=policy)
    sinks = (BenchNode(f"sink_{i}", "count.py", {"data": wire}, ("ack",)) for i in range(receivers))
    return Flow(measure, group, "burst", (sender, *sinks), 120.0)


def stream(plan: Plan, measure: str, period_ms: int, spin: bool) -> Flow:
    env = {"BENCH_STEP_SECONDS": str(plan.stream_seconds)}
    tick = Wire(f"dora/timer/millis/{period_ms}")
    source = BenchNode("source", "stream.py", {"tick": tick}, ("data",), env)
    sink = BenchNode("sink", "sink.py", {"data": Wire("source/data", queue_size=100)})
    return Flow(measure, "cpu", "stream", (source, sink), 60.0, spin)


def hello() -> Flow:
    send = BenchNode("send", "hello_send.py", {}, ("greeting",))
    receive = BenchNode("receive", "hello_receive.py", {"greeting": Wire("send/greeting")})
    return Flow("hello", "start", "hello", (send, receive), 30.0)


def first_tick() -> Flow:
    node = BenchNode("node", "first_tick.py", {"tick": Wire("dora/timer/millis/10")})
    return Flow("first tick", "start", "hello", (node,), 30.0)


def flows(plan: Plan) -> tuple[Flow, ...]:
    """Return every dataflow of the benchmark, in the order of its table."""
    found = (
        round_trip(plan, "round trip"),
        round_trip(plan, "round trip, allocated in shm", source="shm"),
        _thorough(round_trip(plan, "round trip, with metadata", metadata=True)),
        _thorough(round_trip(plan, "round trip, echo", answer="echo")),
        round_trip(plan, "round trip, spin off", spin=False),
        round_trip(plan, "round trip, C and C", languages=("c", "c")),
        round_trip(
            plan, "round trip, C and C, allocated in shm", source="shm", languages=("c", "c")
        ),
        round_trip(plan, "round trip, C and Python", languages=("c", "py")),
        *nested(plan),
        spaced(plan, "one-way, spaced", "oneway", 1),
        burst(plan, "burst", "burst", 1, None),
        _thorough(burst(plan, "burst, backpressure", "burst", 1, "backpressure")),
        spaced(plan, "fan-out 4, one-way", "fanout", 4),
        _thorough(burst(plan, "fan-out 4, burst", "fanout", 4, None)),
        _thorough(stream(plan, "stream 30 Hz", 33, True)),
        _thorough(stream(plan, "stream 30 Hz, spin off", 33, False)),
        stream(plan, "stream 1 kHz", 1, True),
        stream(plan, "stream 1 kHz, spin off", 1, False),
        _pure(round_trip(plan, "round trip")),
        _pure(burst(plan, "burst", "burst", 1, None)),
        _pure(stream(plan, "stream 1 kHz", 1, True)),
        *(make() for _ in range(plan.starts) for make in (hello, first_tick)),
    )
    return tuple(flow for flow in found if flow.quick or not plan.quick)


def _pure(flow: Flow) -> Flow:
    return replace(flow, measure=f"{flow.measure}, pure Python", quick=False, native=False)


def _thorough(flow: Flow) -> Flow:
    return replace(flow, quick=False)
