"""Calls between nodes of a running dataflow."""

from typing import Any

from tests.harness.dataflow import Flow

HEAD = """
import asyncio, os, threading, time
import pyarrow as pa
from dora import Node
from dora.patterns import *
from probe import report

node = Node()

def ask(number, **options):
    event = node.call("request", pa.array([number]), **{"timeout": 20, **options})
    return event["value"][0].as_py()

async def ask_async(number, **options):
    event = await node.call_async("request", pa.array([number]), **{"timeout": 20, **options})
    return event["value"][0].as_py()

def error_of(number, **options):
    started = time.monotonic()
    try:
        ask(number, **options)
    except ExchangeError as error:
        return [type(error).__name__, str(error), time.monotonic() - started]
"""

DOUBLE = """
@node.serve("request", "response")
def double(event):
    number = event["value"][0].as_py()
    if number < 0:
        raise ValueError("negative")
    return pa.array([2 * number])

node.serve()
"""


def wire(flow: Flow, client: str, server: str = DOUBLE, **inputs: Any) -> Flow:
    flow.node(
        "client",
        HEAD + client,
        inputs={"response": {"source": "server/response", "queue_size": 100}, **inputs},
        outputs=["request", "other"],
    )
    requests = {"source": "client/request", "queue_size": 100}
    return flow.node("server", HEAD + server, inputs={"request": requests}, outputs=["response"])


def test_a_call_returns_the_answer_to_its_own_request(flow: Flow) -> None:
    wire(flow, "report([ask(n) for n in range(50)])").run().expect(0)
    assert flow.reports("client") == [[2 * n for n in range(50)]]


def test_an_exception_in_a_handler_is_raised_at_the_caller(flow: Flow) -> None:
    wire(
        flow,
        """
try:
    ask(-1)
except RemoteError as error:
    report([error.kind, error.text])
report(ask(4))
""",
    ).run().expect(0)
    assert flow.reports("client") == [["ValueError", "negative"], 8]


def test_many_threads_call_at_once_while_another_receives(flow: Flow) -> None:
    wire(
        flow,
        """
answers = {}
def work(first):
    for n in range(first, first + 20):
        answers[n] = ask(n)
threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(4)]
for thread in threads:
    thread.start()
ticks = 0
while any(thread.is_alive() for thread in threads) or ticks < 3:
    event = node.next()
    assert event["type"] == "INPUT" and event["id"] == "tick", event
    ticks += 1
report(all(answers[n] == 2 * n for n in answers))
report(len(answers))
""",
        tick="dora/timer/millis/20",
    ).run().expect(0)
    assert flow.reports("client") == [True, 80]


def test_many_tasks_call_at_once_while_another_receives(flow: Flow) -> None:
    wire(
        flow,
        """
async def main():
    ticks = []
    async def receive():
        while True:
            event = await node.recv_async()
            assert event["id"] == "tick", event
            ticks.append(event)
    receiving = asyncio.create_task(receive())
    answers = await asyncio.gather(*(ask_async(n) for n in range(60)))
    while len(ticks) < 2:
        await asyncio.sleep(0.01)
    receiving.cancel()
    more = await asyncio.gather(*(ask_async(n) for n in range(60)))
    assert node.is_empty() in (True, False)
    node.try_recv()
    report([answers == [2 * n for n in range(60)], answers == more])
asyncio.run(main())
""",
        tick="dora/timer/millis/20",
    ).run().expect(0)
    assert flow.reports("client") == [[True, True]]


def test_events_that_are_not_the_answer_come_afterwards_in_order(flow: Flow) -> None:
    flow.node(
        "source",
        HEAD
        + """
for n in range(30):
    node.send_output("data", pa.array([n]))
    time.sleep(0.01)
""",
        outputs=["data"],
    )
    wire(
        flow,
        """
answer = ask(1)
assert answer == 99
empty = node.is_empty()
mixed, data, kinds = [], [], []
for event in [node.try_recv(), *node.drain(), *node]:
    kinds.append(event["type"])
    if event["type"] == "INPUT":
        (mixed if event["id"] == "response" else data).append(event["value"][0].as_py())
report([empty, mixed, data, kinds[-1]])
""",
        """
event = node.next()
for n in range(5):
    node.send_output("response", pa.array([n]))
    time.sleep(0.1)
node.send_output("response", pa.array([99]), {"request_id": event["metadata"]["request_id"]})
node.send_output("response", pa.array([5]))
""",
        data={"source": "source/data", "queue_size": 100},
    ).run().expect(0)
    assert flow.reports("client") == [[False, [0, 1, 2, 3, 4, 5], [*range(30)], "STOP"]]


def test_a_call_to_a_hanging_server_ends_in_time(flow: Flow) -> None:
    wire(
        flow,
        """
report(error_of(1, timeout=0.2))
""",
        "for event in node: pass",
    ).run().expect(0)
    ((kind, text, seconds),) = flow.reports("client")
    assert (kind, text) == ("NoAnswerError", "no answer from `server` within 0.2 s")
    assert seconds >= 0.2


def test_an_answer_without_a_request_id_is_an_error_for_the_caller(flow: Flow) -> None:
    wire(
        flow,
        "report(error_of(1, timeout=0.5)); report(error_of(2, timeout=None))",
        """
for event in node:
    if event["type"] == "INPUT":
        node.send_service_response("response", event["value"], {})
""",
    ).run().expect(0)
    for kind, text, _ in flow.reports("client"):
        assert kind == "NoAnswerError"
        assert "1 message without request_id or goal_id came on `response`" in text


def test_a_server_warns_of_a_request_without_an_id(flow: Flow) -> None:
    outcome = wire(flow, "node.send_output('request', pa.array([1])); report(ask(2))").run()
    outcome.expect(0)
    assert flow.reports("client") == [4]
    assert "a message on input `request` has no request_id" in outcome.output


def test_a_call_without_a_server_names_what_is_missing(flow: Flow) -> None:
    wire(
        flow,
        """
for output in ("other", "nothing"):
    try:
        node.call(output, b"")
    except NoPeerError as error:
        report(str(error))
try:
    node.call("request", b"", reply="nowhere")
except NoPeerError as error:
    report(str(error))
""",
    ).run().expect(0)
    other, nothing, nowhere = flow.reports("client")
    assert other.startswith("output `other` has no receiver: give the node")
    assert nothing == "output `nothing` is not among the outputs of this node"
    assert nowhere == "`reply`: this node has no input `nowhere`"


def test_a_call_with_two_possible_reply_inputs_must_name_one(flow: Flow) -> None:
    wire(
        flow,
        """
report(error_of(1)[:2])
report(ask(1, reply="response"))
""",
        again="server/response",
    ).run().expect(0)
    (kind, text), answer = flow.reports("client")
    assert kind == "NoPeerError"
    assert "`again` from `server`, `response` from `server`; select one with `reply`" in text
    assert answer == 2


def test_a_server_that_fails_ends_the_call_at_once(flow: Flow) -> None:
    outcome = wire(
        flow,
        """
report(error_of(1, timeout=20))
report(error_of(1, timeout=20))
""",
        "node.next(); os._exit(3)",
    ).run()
    assert outcome.code == 1
    for kind, text, seconds in flow.reports("client"):
        assert kind == "PeerLostError"
        assert "has failed: exited with code 3" in text or "is closed" in text or "ended" in text
        assert seconds < 10


def test_a_server_that_ends_ends_the_call_at_once(flow: Flow) -> None:
    wire(
        flow, "report(error_of(1, timeout=20)); report(error_of(1, timeout=20))", "node.next()"
    ).run().expect(0)
    for kind, _, seconds in flow.reports("client"):
        assert kind == "PeerLostError"
        assert seconds < 10


def test_an_answer_sent_just_before_exit_arrives(flow: Flow) -> None:
    wire(
        flow,
        "report(ask(1))",
        """
event = node.next()
node.send_service_response("response", pa.array([7]), event["metadata"])
os._exit(0)
""",
    ).run()
    assert flow.reports("client") == [7]


def test_a_server_that_is_restarted_ends_the_call_at_once_and_serves_the_next(flow: Flow) -> None:
    wire(
        flow,
        """
report(error_of(0, timeout=20))
report(ask(5))
""",
        """
@node.serve("request", "response")
def handler(event):
    number = event["value"][0].as_py()
    if not number:
        os._exit(1)
    return pa.array([2 * number])
node.serve()
""",
    )
    flow.nodes[-1] |= {"restart_policy": "on-failure", "restart_delay": 0.1}
    flow.run().expect(0)
    (kind, text, seconds), answer = flow.reports("client")
    assert (kind, answer) == ("PeerLostError", 10)
    assert text.startswith("node `server` was restarted")
    assert seconds < 10


def test_an_input_that_goes_silent_ends_the_call(flow: Flow) -> None:
    wire(
        flow,
        """
ask(1)
report(error_of(-1, timeout=20))
""",
        """
for event in node:
    if event["type"] == "INPUT" and event["value"][0].as_py() >= 0:
        node.send_service_response("response", event["value"], event["metadata"])
""",
    )
    flow.nodes[0]["inputs"]["response"] = {"source": "server/response", "input_timeout": 0.5}
    flow.run().expect(0)
    ((kind, text, seconds),) = flow.reports("client")
    assert (kind, text) == (
        "PeerLostError",
        "nothing came on input `response` within its input_timeout",
    )
    assert seconds < 10


def test_a_stop_ends_the_call_and_is_still_received(flow: Flow) -> None:
    wire(
        flow,
        """
report(error_of(1, timeout=60)[:2])
event = node.next()
report([event["type"], event["id"]])
report(error_of(1, timeout=60)[:2])
""",
        "for event in node: pass",
    ).run(stop_after=8).expect(0)
    first, stop, second = flow.reports("client")
    assert first == ["StoppingError", "the node is being stopped; no reply can come"]
    assert stop == ["STOP", "MANUAL"]
    assert second == first


def test_hand_written_clients_and_servers_work_with_the_helpers(flow: Flow) -> None:
    wire(
        flow,
        """
request_id = node.send_service_request("request", pa.array([3]))
for event in node:
    if event["type"] == "INPUT":
        report([event["value"].to_pylist(), event["metadata"]["request_id"] == request_id])
        break
""",
    ).run().expect(0)
    assert flow.reports("client") == [[[6], True]]


def test_an_async_server_answers_requests_concurrently(flow: Flow) -> None:
    wire(
        flow,
        """
async def main():
    report(await asyncio.gather(*(ask_async(n) for n in range(8))))
asyncio.run(main())
""",
        """
waiting = []
@node.serve("request", "response")
async def handler(event):
    # No request is answered before all have arrived.
    gate = asyncio.get_running_loop().create_future()
    waiting.append(gate)
    if len(waiting) == 8:
        for other in waiting:
            other.set_result(None)
    await gate
    return event["value"], {"note": "hi"}
asyncio.run(node.serve_async())
""",
    ).run().expect(0)
    assert flow.reports("client") == [list(range(8))]


def test_a_late_answer_is_discarded(flow: Flow) -> None:
    wire(
        flow,
        """
report(error_of(1, timeout=0.2)[0])
report(ask(2))
report([event["type"] for event in node])
""",
        """
first = node.next()
time.sleep(0.5)
node.send_service_response("response", pa.array([1]), first["metadata"])
second = node.next()
node.send_service_response("response", pa.array([4]), second["metadata"])
""",
    ).run().expect(0)
    assert flow.reports("client") == ["NoAnswerError", 4, ["INPUT_CLOSED", "STOP"]]


def test_a_call_that_would_block_its_own_event_loop_is_refused(flow: Flow) -> None:
    wire(
        flow,
        """
async def main():
    receiving = asyncio.create_task(node.recv_async())
    await asyncio.sleep(0.05)
    report(error_of(1)[:2])
    report(await ask_async(2))
    report(error_of(1)[0])
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    report(ask(3))
asyncio.run(main())
""",
    ).run().expect(0)
    first, second, third, fourth = flow.reports("client")
    assert first[0] == third == "ExchangeError"
    assert "use `call_async`" in first[1]
    assert (second, fourth) == (4, 6)


def test_a_canceled_call_leaves_no_pending_request(flow: Flow) -> None:
    wire(
        flow,
        """
async def main():
    for n in range(20):
        asking = asyncio.create_task(ask_async(n))
        await asyncio.sleep(0.002 * (n % 3))
        asking.cancel()
    report(await ask_async(100))
asyncio.run(main())
report(ask(101))
report([event["type"] for event in [node.try_recv(), *node.drain()] if event])
""",
    ).run().expect(0)
    assert flow.reports("client") == [200, 202, []]


def test_a_call_to_an_ended_operator_raises_peer_lost(flow: Flow) -> None:
    flow.folder.joinpath("ends.py").write_text(
        """
from dora import DoraStatus

class Operator:
    def on_event(self, event, send_output):
        return DoraStatus.STOP if event["type"] == "INPUT" else DoraStatus.CONTINUE
"""
    )
    flow.folder.joinpath("goes_on.py").write_text(
        """
from dora import DoraStatus

class Operator:
    def on_event(self, event, send_output):
        return DoraStatus.CONTINUE
"""
    )
    wire(
        flow,
        """
report(error_of(1, timeout=20))
report(error_of(2, timeout=20))
""",
    )
    ends = {"id": "ends", "python": "ends.py", "outputs": ["response"]}
    goes_on = {"id": "goes_on", "python": "goes_on.py", "inputs": {"late": "client/other"}}
    flow.nodes[-1] = {
        "id": "server",
        "operators": [ends | {"inputs": {"request": "client/request"}}, goes_on],
    }
    flow.nodes[0]["inputs"]["response"] = "server/ends/response"
    flow.run().expect(0)
    reports = flow.reports("client")
    assert [kind for kind, _, _ in reports] == ["PeerLostError", "PeerLostError"]
    assert all(seconds < 10 for _, _, seconds in reports)
