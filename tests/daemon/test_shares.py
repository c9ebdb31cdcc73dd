"""A dataflow over two machines: two daemons, their links on loopback, one dataflow."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.dataflow.model import LINK
from tests.harness.daemon import Daemon, daemon, emptied
from tests.harness.flows import SINK, SOURCE, seen, write_flow
from tests.harness.machines import Machines
from tests.harness.slowline import slow_line_beside
from tests.harness.waiting import wait_until
from tests.link.certificates import Authority

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

PLACEMENT = {"source": "alpha", "sink": "beta"}

FINITE = """
    import pyarrow as pa
    from dora import Node
    node = Node()
    for number in range(200):
        node.send_output("number", pa.array([number]))
"""

EVENTS = """
    import os
    from dora import Node
    with open(os.environ["SEEN"], "a", buffering=1) as seen:
        for event in Node():
            seen.write(f"{event['type']} {event['id']}\\n")
"""


@pytest.fixture(scope="module")
def daemons() -> Iterator[tuple[Daemon, Daemon]]:
    with daemon() as alpha, daemon() as beta:
        yield alpha, beta


@pytest.fixture
def two(daemons: tuple[Daemon, Daemon]) -> Iterator[Machines]:
    alpha, beta = daemons
    with emptied(alpha), emptied(beta):
        yield Machines(alpha, beta)


@pytest.fixture
def own_two() -> Iterator[Machines]:
    """Machines whose daemons the test may kill."""
    with daemon() as alpha, daemon() as beta:
        yield Machines(alpha, beta)


def restarted(two: Machines, machine: str) -> bool:
    return two.node(machine, LINK).restarts == 1


def more_than(count: int, folder: Path) -> bool:
    return len(seen(folder)) > count


def counting(folder: Path, *, source: str = SOURCE, sink: str = SINK, **edge: Any) -> list[Any]:
    """Write the programs of `source` and `sink`; return the nodes."""
    nodes = [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": "dora/timer/hz/100"},
            "outputs": ["number"],
        },
        {
            "id": "sink",
            "path": "sink.py",
            "inputs": {"number": {"source": "source/number", "queue_size": 1000, **edge}},
            "env": {"SEEN": str(folder / "seen")},
        },
    ]
    write_flow(folder, nodes, source=source, sink=sink)
    return nodes


def test_data_flows_between_machines_until_both_are_stopped(two: Machines, tmp_path: Path) -> None:
    two.start_both(tmp_path, counting(tmp_path), PLACEMENT)
    wait_until(lambda: len(seen(tmp_path)) > 50)
    assert seen(tmp_path)[:50] == list(range(50))
    assert two.state("alpha").links["beta"].state == "up"
    for machine in two.daemons.values():
        with machine.client() as client:
            assert client.stop(two.uuid).status == "finished"
            assert [each.node for each in client.wait(two.uuid).results] != [LINK]


def test_no_node_starts_before_every_machine_is_ready(two: Machines, tmp_path: Path) -> None:
    nodes = counting(tmp_path)
    two.start("alpha", tmp_path, nodes, PLACEMENT)
    with two.daemons["alpha"].client() as client, pytest.raises(ControlError) as caught:
        client.wait(two.uuid, until="ready", timeout=2)
    assert caught.value.code == "deadline"
    state = two.state("alpha")
    assert not state.ready
    assert state.links["beta"].state == "absent"
    two.start("beta", tmp_path, nodes, PLACEMENT)
    two.open()
    wait_until(lambda: len(seen(tmp_path)) > 5)


def test_a_start_that_is_never_opened_fails_and_says_what_was_missing(
    two: Machines, tmp_path: Path
) -> None:
    two.start("alpha", tmp_path, counting(tmp_path), PLACEMENT, hold=3)
    state = two.ended("alpha")
    assert state.status == "failed"
    headline = state.failures[0].headline
    assert "did not start in time" in headline
    assert "link to beta" in headline


def test_a_start_that_was_opened_early_waits_for_its_nodes_beyond_the_hold(
    two: Machines, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    slow = f"""
    import os, time
    while not os.path.exists({str(go)!r}):
        time.sleep(0.05)
    {SOURCE.strip()}"""
    two.start("alpha", tmp_path, counting(tmp_path, source=slow), PLACEMENT, hold=2)
    with two.daemons["alpha"].client() as client:
        client.open_barrier(two.uuid)
        with pytest.raises(ControlError) as caught:
            client.wait(two.uuid, until="running", timeout=3)
        assert caught.value.code == "deadline"
        go.touch()
        assert client.wait(two.uuid, until="running", timeout=30).status == "running"


def test_a_machine_alone_starts_at_once_without_a_hold(two: Machines, tmp_path: Path) -> None:
    nodes = counting(tmp_path)
    two.start("alpha", tmp_path, nodes, PLACEMENT, hold=None)
    with two.daemons["alpha"].client() as client:
        client.wait(two.uuid, until="running", timeout=30)
    two.start("beta", tmp_path, nodes, PLACEMENT, hold=None)
    wait_until(lambda: len(seen(tmp_path)) > 20)


def test_the_end_of_a_source_ends_its_consumers_on_the_other_machine(
    two: Machines, tmp_path: Path
) -> None:
    nodes = counting(tmp_path, source=FINITE)
    nodes[0].pop("inputs")
    two.start_both(tmp_path, nodes, PLACEMENT)
    assert two.ended("alpha").status == two.ended("beta").status == "finished"
    assert seen(tmp_path) == list(range(200))


def test_a_consumer_hears_of_the_failure_of_a_node_elsewhere(two: Machines, tmp_path: Path) -> None:
    source = "from dora import Node\nnode = Node()\nraise SystemExit(3)\n"
    nodes = counting(tmp_path, source=source, sink=EVENTS)
    two.start_both(tmp_path, nodes, PLACEMENT)
    assert two.ended("beta").status == "finished"
    text = (tmp_path / "seen").read_text()
    assert text == "INPUT_CLOSED number\nNODE_FAILED source\nSTOP ALL_INPUTS_CLOSED\n"
    failed = two.ended("alpha")
    assert [each.headline for each in failed.failures] == ["node source exited with code 3"]


def test_a_killed_link_comes_back_and_every_loss_is_counted(two: Machines, tmp_path: Path) -> None:
    two.start_both(tmp_path, counting(tmp_path), PLACEMENT)
    for machine in two.daemons:
        wait_until(lambda: len(seen(tmp_path)) > 20)
        pid = two.node(machine, LINK).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(partial(restarted, two, machine))
        mark = len(seen(tmp_path))
        wait_until(partial(more_than, mark + 50, tmp_path))
    numbers = seen(tmp_path)
    assert numbers == sorted(set(numbers)), "a message came twice or out of order"


def test_backpressure_on_the_other_machine_makes_a_node_wait(two: Machines, tmp_path: Path) -> None:
    source = """
        import os
        import pyarrow as pa
        from dora import Node
        node = Node()
        with open(os.environ["SENT"], "a", buffering=1) as sent:
            for number in range(100_000):
                node.send_output("number", pa.array([number] * 1000))
                sent.write("x\\n")
    """
    sink = """
        import os, time
        from dora import Node
        node = Node()
        while not os.path.exists(os.environ["SEEN"] + ".go"):
            time.sleep(0.02)
        with open(os.environ["SEEN"], "a", buffering=1) as seen:
            for event in node:
                if event["type"] == "INPUT":
                    seen.write(f"{event['value'][0]}\\n")
    """
    nodes = counting(tmp_path, source=source, sink=sink, queue_policy="backpressure", queue_size=4)
    nodes[0].pop("inputs")
    nodes[0]["env"] = {"SENT": str(tmp_path / "sent")}
    two.start_both(tmp_path, nodes, PLACEMENT)
    sent = tmp_path / "sent"
    wait_until(lambda: sent.exists() and sent.stat().st_size > 10)
    size, since = -1, time.monotonic()

    def waits() -> bool:
        nonlocal size, since
        before, size = size, sent.stat().st_size
        since = since if before == size else time.monotonic()
        return time.monotonic() - since > 1

    wait_until(waits)
    assert sent.stat().st_size < 200  # messages on the way, and in two queues, at two bytes
    (tmp_path / "seen.go").touch()
    # A sender that is not woken looks for room every tenth of a second: four messages each time.
    wait_until(lambda: len(seen(tmp_path)) > 1500, deadline_s=30)
    assert seen(tmp_path)[:1500] == list(range(1500))


def test_a_daemon_may_be_killed_under_a_share_and_the_link_continues(
    own_two: Machines, tmp_path: Path
) -> None:
    two = own_two
    two.start_both(tmp_path, counting(tmp_path), PLACEMENT)
    wait_until(lambda: len(seen(tmp_path)) > 20)
    before = {machine: two.node(machine, LINK).pid for machine in two.daemons}
    for each in two.daemons.values():
        each.kill()
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 50)
    for each in two.daemons.values():
        each.start()
    assert {machine: two.node(machine, LINK).pid for machine in two.daemons} == before
    wait_until(lambda: two.state("alpha").links["beta"].state == "up")
    for each in two.daemons.values():
        with each.client() as client:
            client.stop(two.uuid)
    numbers = seen(tmp_path)
    assert numbers == list(range(len(numbers)))


def test_a_missing_working_directory_is_an_error_of_that_machine(
    two: Machines, tmp_path: Path
) -> None:
    nodes = counting(tmp_path)
    nodes[1]["deploy"] = {"machine": "beta", "working_dir": "nowhere"}
    two.start("alpha", tmp_path, nodes, PLACEMENT)
    with pytest.raises(ControlError) as caught:
        two.start("beta", tmp_path, nodes, PLACEMENT)
    assert f"no folder {tmp_path / 'nowhere'}" in str(caught.value.problems)
    assert "`dorafleet push` copies" in str(caught.value.problems)


def test_a_run_may_be_started_again_under_its_uuid_only_after_its_end(
    two: Machines, tmp_path: Path
) -> None:
    nodes = counting(tmp_path)
    two.start("alpha", tmp_path, nodes, PLACEMENT, hold=None)
    with pytest.raises(ControlError) as caught:
        two.start("alpha", tmp_path, nodes, PLACEMENT, hold=None)
    assert caught.value.code == "exists"
    with two.daemons["alpha"].client() as client:
        client.stop(two.uuid)
    two.start("alpha", tmp_path, nodes, PLACEMENT, hold=None)
    with two.daemons["alpha"].client() as client:
        assert [flow.uuid for flow in client.list()] == [two.uuid]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"other": "no/name"}, "share is not valid"),
        ({"tls": m.LinkTls(ca="/none", certificate="/none", key="/none")}, "/none cannot be read"),
    ],
)
def test_a_share_that_cannot_work_is_refused(
    changed: dict[str, Any], text: str, two: Machines, tmp_path: Path
) -> None:
    nodes = counting(tmp_path)
    placement = {"source": "alpha", "sink": changed.pop("other", "beta")}
    with pytest.raises(ControlError) as caught:
        two.start("alpha", tmp_path, nodes, placement, **changed)
    assert text in caught.value.message


def a_sink(folder: Path, name: str, source: str) -> dict[str, Any]:
    """Return a sink that notes numbers in its own folder."""
    own = folder / name
    own.mkdir()
    return {
        "id": name,
        "path": "sink.py",
        "inputs": {"number": {"source": source, "queue_size": 1000}},
        "env": {"SEEN": str(own / "seen")},
    }


def pids(two: Machines) -> dict[str, int | None]:
    """Return the processes of both machines; the links are told apart by the machine."""
    found = {}
    for machine, each in two.daemons.items():
        with each.client() as client:
            for node in client.nodes(two.uuid):
                found[f"{machine}/{node.node}"] = node.pid
    return found


def params_of(two: Machines, node: str) -> dict[str, Any]:
    """Return the parameters of a node of beta."""
    with two.daemons["beta"].client() as client:
        found = client.call(m.PARAM_LIST, m.NodeRef(node=node, dataflow=two.uuid))
    return {param.key: param.value for param in found.params}


def test_nodes_and_edges_change_while_everything_else_runs_on(
    two: Machines, tmp_path: Path
) -> None:
    nodes = counting(tmp_path)
    two.start_both(tmp_path, nodes, PLACEMENT)
    wait_until(lambda: len(seen(tmp_path)) > 20)
    before = pids(two)
    back = {**nodes[0], "id": "back"}
    more = [
        *nodes,
        a_sink(tmp_path, "second", "source/number"),
        back,
        a_sink(tmp_path, "third", "back/number"),
    ]
    placement = {**PLACEMENT, "second": "beta", "back": "beta", "third": "alpha"}
    # Nodes that run already keep what they have.
    params = {"second": {"gain": 2}, "sink": {"gain": 3}, "elsewhere": {"gain": 4}}
    two.update(more, placement, params=params)
    assert params_of(two, "second") == {"gain": 2}
    assert params_of(two, "sink") == {}
    for name in ("second", "third"):
        wait_until(partial(more_than, 30, tmp_path / name))
    assert {name: pid for name, pid in pids(two).items() if name in before} == before
    two.update(nodes, PLACEMENT)
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 50)
    assert pids(two) == before
    numbers = seen(tmp_path)
    assert numbers == list(range(len(numbers))), "a channel that stays has lost something"
    second = seen(tmp_path / "second")
    assert second == list(range(second[0], second[-1] + 1))


def test_a_disconnected_input_elsewhere_does_not_end_its_node(
    two: Machines, tmp_path: Path
) -> None:
    nodes = counting(tmp_path)
    two.start_both(tmp_path, nodes, PLACEMENT)
    wait_until(lambda: len(seen(tmp_path)) > 20)
    alone = [nodes[0], {**nodes[1], "inputs": {}}]
    two.update(alone, PLACEMENT)
    assert [name.partition("/")[2] for name in pids(two)] == ["source", "sink"]
    mark = len(seen(tmp_path))
    two.update(nodes, PLACEMENT)
    wait_until(lambda: len(seen(tmp_path)) > mark + 30)
    assert two.node("beta", "sink").restarts == 0


def test_a_node_that_has_ended_starts_again_but_not_before_its_sources(
    two: Machines, tmp_path: Path
) -> None:
    nodes = counting(tmp_path)
    # On each machine one node runs on: a share ends with its last node.
    for name in ("here", "there"):
        nodes.append({**nodes[0], "id": name})
    two.start_both(tmp_path, nodes, {**PLACEMENT, "here": "alpha", "there": "beta"})
    alpha, beta = two.daemons["alpha"], two.daemons["beta"]
    wait_until(lambda: len(seen(tmp_path)) > 20)
    with beta.client() as client:
        client.stop_node("sink", dataflow=two.uuid)
        mark = len(seen(tmp_path))
        client.restart_node("sink", dataflow=two.uuid)
    wait_until(lambda: len(seen(tmp_path)) > mark + 20)
    with alpha.client() as client:
        client.stop_node("source", dataflow=two.uuid)
    wait_until(lambda: two.node("beta", "sink").status == "stopped")
    with beta.client() as client, pytest.raises(ControlError, match="inputs have closed"):
        client.restart_node("sink", dataflow=two.uuid)


def test_an_update_with_a_missing_program_changes_nothing(two: Machines, tmp_path: Path) -> None:
    nodes = counting(tmp_path)
    two.start("alpha", tmp_path, nodes, PLACEMENT, hold=None)
    with two.daemons["alpha"].client() as client:
        client.wait(two.uuid, until="running", timeout=30)
    with pytest.raises(ControlError) as caught:
        two.update([*nodes, {"id": "x", "path": "none.py"}], {**PLACEMENT, "x": "alpha"})
    assert "none.py" in f"{caught.value.message} {caught.value.problems}"
    with two.daemons["alpha"].client() as client:
        assert [node.node for node in client.nodes(two.uuid)] == ["source", LINK]


def test_one_machine_alone_does_not_change_a_dataflow_of_several(
    two: Machines, tmp_path: Path
) -> None:
    two.start("alpha", tmp_path, counting(tmp_path), PLACEMENT, hold=None)
    with two.daemons["alpha"].client() as client:
        client.wait(two.uuid, until="running", timeout=30)
        for change in (
            lambda: client.remove_node("source"),
            lambda: client.restart(two.uuid),
            lambda: client.enable(two.uuid),
            lambda: client.stop_node(LINK),
        ):
            with pytest.raises(ControlError) as caught:
                change()
            assert caught.value.code == "refused"


SERVER = """
    from dora import Node
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_service_response("response", event["value"], event["metadata"])
"""

CLIENT = """
    import os
    import pyarrow as pa
    from dora import Node
    node = Node()
    with open(os.environ["SEEN"], "a", buffering=1) as seen:
        for number in range(5):
            reply = node.call("request", pa.array([number]), timeout=20)
            seen.write(f"{reply['value'][0]}\\n")
"""


def test_a_service_on_another_machine_answers(two: Machines, tmp_path: Path) -> None:
    nodes = [
        {
            "id": "client",
            "path": "client.py",
            "inputs": {"response": "server/response"},
            "outputs": ["request"],
            "env": {"SEEN": str(tmp_path / "seen")},
        },
        {
            "id": "server",
            "path": "server.py",
            "inputs": {"request": "client/request"},
            "outputs": ["response"],
        },
    ]
    write_flow(tmp_path, nodes, client=CLIENT, server=SERVER)
    two.start_both(tmp_path, nodes, {"client": "alpha", "server": "beta"})
    assert two.ended("alpha").status == two.ended("beta").status == "finished"
    assert seen(tmp_path) == list(range(5))


def test_commands_show_links_and_their_channels(two: Machines, tmp_path: Path) -> None:
    two.start_both(tmp_path, counting(tmp_path), PLACEMENT)
    wait_until(lambda: len(seen(tmp_path)) > 20)

    def channels(machine: str) -> list[m.LinkChannel]:
        with two.daemons[machine].client() as client:
            return client.top().links

    wait_until(lambda: all(each.messages > 10 for each in channels("beta")) and channels("beta"))
    (arriving,) = channels("beta")
    assert (arriving.dataflow, arriving.output) == (two.uuid, "source/number")
    assert (arriving.machine, arriving.outgoing, arriving.lost) == ("alpha", False, 0)
    alpha = two.daemons["alpha"]
    wait_until(lambda: all(each.messages > 10 for each in channels("alpha")) and channels("alpha"))
    with alpha.client() as client:
        (topic,) = client.topics(two.uuid).topics
    assert [(each.machine, each.outgoing) for each in topic.links] == [("beta", True)]
    assert "machine beta (" in alpha.dora_ok("topic", "info", "--duration", "1s")
    assert "link to beta: dataflow flow" in alpha.dora("doctor").stdout
    shown = {each["node_id"]: each for each in json.loads(alpha.dora_ok("top", "--once"))}
    (channel,) = shown[LINK]["channels"]
    assert channel["topic"] == "source/number"
    assert (channel["line"]["slow_line"], channel["line"]["dropped"]) == (False, 0)
    assert "is slow" not in alpha.dora_ok("topic", "info", "--duration", "1s")


CAMERA = """
    import time
    import pyarrow as pa
    from dora import Node
    node = Node()
    while True:
        node.send_output("image", pa.array([7] * 20_000, type=pa.uint8()))
        if (event := node.try_recv()) is not None and event["type"] == "STOP":
            break
        time.sleep(0.02)
"""


def test_commands_show_what_a_slow_line_does_with_the_outputs_that_share_it(
    two: Machines, tmp_path: Path
) -> None:
    """The camera sends five times what the line takes; what it does not take is dropped."""
    nodes = counting(tmp_path, queue_policy="backpressure")
    camera = {"id": "camera", "path": "camera.py", "outputs": ["image"]}
    screen: dict[str, Any] = {
        "id": "screen",
        "path": "sink.py",
        "inputs": {"image": {"source": "camera/image", "queue_size": 4}},
        "env": {"SEEN": str(tmp_path / "screen")},
    }
    nodes += [camera, screen]
    write_flow(tmp_path, nodes, source=SOURCE, sink=SINK, camera=CAMERA)
    placement = PLACEMENT | {"camera": "alpha", "screen": "beta"}
    alpha = two.daemons["alpha"]
    with slow_line_beside(two.port) as line:
        two.start("alpha", tmp_path, nodes, placement)
        two.start("beta", tmp_path, nodes, placement, connect=[f"tcp/127.0.0.1:{line}"])
        two.open()
        wait_until(lambda: len(seen(tmp_path)) > 20)

        def shown(topic: str) -> dict[str, Any]:
            words = ("topic", "info", topic, "--duration", "1s", "-f", "json")
            (machine,) = json.loads(alpha.dora_ok(*words))["machines"]
            found: dict[str, Any] = machine["line"]
            return found

        def is_told() -> bool:
            image, number = shown("camera/image"), shown("source/number")
            print(image, number)
            shares = image["share_percent"] or 0, number["share_percent"] or 0
            is_slow = image["slow_line"] and image["dropped"] > 0 and not number["dropped"]
            return is_slow and shares[0] > shares[1] > 0

        wait_until(is_told)
        text = alpha.dora_ok("topic", "info", "camera/image", "--duration", "1s")
        assert "the line is slow and shared with source/number (" in text
        assert "messages wait, 0 dropped" not in text
        (link,) = [n for n in json.loads(alpha.dora_ok("top", "--once")) if n["node_id"] == LINK]
        lines = {each["topic"]: each["line"] for each in link["channels"]}
        assert lines["camera/image"]["slow_line"]
        assert lines["camera/image"]["dropped"] > 0


def test_links_prove_that_they_belong_to_the_fleet_and_take_new_certificates(
    two: Machines, tmp_path: Path
) -> None:
    two.scheme = "tls"
    nodes = counting(tmp_path, queue_policy="backpressure")

    def certificates(authority: Authority) -> dict[str, m.LinkTls]:
        return {
            name: m.LinkTls(**authority.issue(name, f"URI:dorad:robot/{name}"))
            for name in two.daemons
        }

    fleet, other = Authority(tmp_path / "fleet"), Authority(tmp_path / "other")
    files = certificates(fleet)
    for machine in two.daemons:
        two.start(machine, tmp_path, nodes, PLACEMENT, tls=files[machine])
    two.open()
    wait_until(lambda: len(seen(tmp_path)) > 20)
    before = pids(two)
    two.update(nodes, PLACEMENT, certificates(other))
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 50)
    assert pids(two) == before, "the link is not the same process"
    numbers = seen(tmp_path)
    assert numbers == list(range(len(numbers)))
    with two.daemons["alpha"].client() as client:
        assert "PRIVATE KEY" not in repr(client.info(two.uuid))


def test_an_address_in_use_is_reported_by_the_link(two: Machines, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", two.port))
        taken.listen()
        two.start("alpha", tmp_path, counting(tmp_path), PLACEMENT)
        alpha = two.daemons["alpha"]

        def notes() -> list[str]:
            with alpha.client() as client:
                return client.node_info(LINK, dataflow=two.uuid).notes

        wait_until(lambda: any("cannot be opened" in each for each in notes()))
        wait_until(lambda: "cannot be opened" in two.state("alpha").links["beta"].reason)


def test_a_latched_input_elsewhere_gets_the_last_value_however_late_it_comes(
    two: Machines, tmp_path: Path
) -> None:
    once = """
        import pyarrow as pa
        from dora import Node
        node = Node()
        node.send_output("number", pa.array([7]))
        for event in node:
            pass
    """
    nodes = counting(tmp_path, source=once, latched=True)
    two.start_both(tmp_path, nodes, PLACEMENT)
    beta = two.daemons["beta"]
    wait_until(lambda: seen(tmp_path) == [7])
    late = a_sink(tmp_path, "late", "source/number")
    late["inputs"]["number"]["latched"] = True
    two.update([*nodes, late], {**PLACEMENT, "late": "beta"})
    wait_until(lambda: seen(tmp_path / "late") == [7])
    with beta.client() as client:
        client.stop(two.uuid)
    (tmp_path / "seen").unlink()
    two.start("beta", tmp_path, nodes, PLACEMENT, hold=None)
    wait_until(lambda: seen(tmp_path) == [7], why="a machine that comes back lacks the value")
