"""Goals between nodes of a running dataflow."""

import pytest

from tests.harness.dataflow import Flow
from tests.node.patterns.test_calls import HEAD

COUNT = """
@node.serve_goals("goal", "result", feedback="feedback", cancel="cancel", concurrent=4)
def count(goal):
    most = goal.value[0].as_py()
    if most < 0:
        raise ValueError("negative")
    for n in range(most):
        goal.feedback(pa.array([n]))
        if goal.wait(0.01):
            return pa.array([n])
    return pa.array([most]), {"note": "all"}

node.serve()
"""


def wire(flow: Flow, client: str, server: str = COUNT) -> Flow:
    flow.node(
        "client",
        HEAD + client,
        inputs={
            "feedback": {"source": "server/feedback", "queue_size": 100},
            "result": "server/result",
        },
        outputs=["goal", "cancel"],
    )
    return flow.node(
        "server",
        HEAD + server,
        inputs={"goal": "client/goal", "cancel": "client/cancel"},
        outputs=["feedback", "result"],
    )


def test_a_goal_gives_its_feedback_and_its_result(flow: Flow) -> None:
    wire(
        flow,
        """
goal = node.send_goal("goal", pa.array([5]), timeout=20)
report([event["value"][0].as_py() for event in goal])
result = goal.result()
metadata = result["metadata"]
report([goal.status, result["value"].to_pylist(), metadata["note"], goal.id == metadata["goal_id"]])
""",
    ).run().expect(0)
    assert flow.reports("client") == [[0, 1, 2, 3, 4], ["succeeded", [5], "all", True]]


def test_goals_run_concurrently_in_threads_and_tasks(flow: Flow) -> None:
    wire(
        flow,
        """
async def pursue(most):
    goal = node.send_goal("goal", pa.array([most]), timeout=20)
    seen = [event["value"][0].as_py() async for event in goal]
    result = await goal.result_async()
    return [seen == list(range(most)), result["value"][0].as_py()]

async def main():
    report(await asyncio.gather(*(pursue(most) for most in (3, 8, 5, 1, 9, 2))))
asyncio.run(main())
""",
    ).run().expect(0)
    assert flow.reports("client") == [[[True, most] for most in (3, 8, 5, 1, 9, 2)]]


def test_a_canceled_goal_ends_early_with_status_canceled(flow: Flow) -> None:
    wire(
        flow,
        """
goal = node.send_goal("goal", pa.array([100_000]), timeout=20)
for event in goal:
    if event["value"][0].as_py() == 3:
        goal.cancel()
report([goal.result()["value"][0].as_py() < 100_000, goal.status])
goal.cancel()
node.send_output("cancel", b"", {"goal_id": "unheard-of"})
node.send_output("cancel", b"")
node.send_output("goal", pa.array([1]))
again = node.send_goal("goal", pa.array([1]), timeout=20)
again.result()
""",
    )
    outcome = flow.run().expect(0)
    assert flow.reports("client") == [[True, "canceled"]]
    assert "names goal unheard-of, which is unknown or has ended" in outcome.output
    assert "a cancel on input `cancel` has no goal_id" in outcome.output
    assert "a message on input `goal` has no goal_id" in outcome.output


def test_goals_beyond_the_limit_wait_and_may_be_canceled(flow: Flow) -> None:
    wire(
        flow,
        """
first = node.send_goal("goal", pa.array([100_000]), timeout=20)
waiting = node.send_goal("goal", pa.array([2]), timeout=20)
dropped = node.send_goal("goal", pa.array([2]), timeout=20)
dropped.cancel()
dropped.result()
report([dropped.status, waiting.status])
first.cancel()
report([waiting.result()["value"][0].as_py(), first.result() and first.status])
""",
        COUNT.replace("concurrent=4", "concurrent=1"),
    ).run().expect(0)
    assert flow.reports("client") == [["canceled", None], [2, "canceled"]]


def test_a_handler_that_raises_aborts_its_goal_and_the_client_gets_the_error(flow: Flow) -> None:
    wire(
        flow,
        """
goal = node.send_goal("goal", pa.array([-1]), timeout=20)
try:
    goal.result()
except RemoteError as error:
    report([error.kind, error.text, goal.status])
""",
    ).run().expect(0)
    assert flow.reports("client") == [["ValueError", "negative", "aborted"]]


@pytest.mark.parametrize("error", ["SystemExit(0)", "asyncio.CancelledError()"])
def test_a_handler_that_would_end_its_thread_aborts_its_goal(flow: Flow, error: str) -> None:
    wire(
        flow,
        """
goal = node.send_goal("goal", pa.array([1]), timeout=20)
try:
    goal.result()
except RemoteError as error:
    report([error.kind, goal.status])
""",
        f"""
@node.serve_goals("goal", "result", feedback="feedback", cancel="cancel")
def pursue(goal):
    raise {error}
node.serve()
""",
    ).run().expect(0)
    assert flow.reports("client") == [[error.partition("(")[0].split(".")[-1], "aborted"]]


def test_an_async_handler_is_canceled_while_it_waits(flow: Flow) -> None:
    wire(
        flow,
        """
goal = node.send_goal("goal", pa.array([1]), timeout=20)
next(iter(goal))
goal.cancel()
goal.result()
report(goal.status)
""",
        """
@node.serve_goals("goal", "result", feedback="feedback", cancel="cancel")
async def pursue(goal):
    goal.feedback(b"")
    await goal.wait_async(60)
    goal.check()
asyncio.run(node.serve_async())
""",
    ).run().expect(0)
    assert flow.reports("client") == ["canceled"]


def test_a_server_that_dies_ends_the_goal_at_once(flow: Flow) -> None:
    outcome = wire(
        flow,
        """
goal = node.send_goal("goal", pa.array([1]), timeout=60)
started = time.monotonic()
try:
    report(len(list(goal)))
except PeerLostError:
    report(time.monotonic() - started < 20)
try:
    goal.result()
except PeerLostError:
    report("lost")
""",
        """
event = node.next()
node.send_output("feedback", b"", {"goal_id": event["metadata"]["goal_id"]})
os._exit(2)
""",
    ).run()
    assert outcome.code == 1
    assert flow.reports("client") == [True, "lost"]


def test_waiting_for_a_result_times_out(flow: Flow) -> None:
    wire(
        flow,
        """
goal = node.send_goal("goal", pa.array([100_000]), timeout=60)
try:
    goal.result(timeout=0.2)
except NoAnswerError as error:
    report(str(error))
goal.cancel()
goal.result()
report(goal.status)
""",
    ).run().expect(0)
    assert flow.reports("client") == ["no result from `server` within 0.2 s", "canceled"]


def test_a_stop_cancels_the_goals_of_a_server(flow: Flow) -> None:
    wire(
        flow,
        """
try:
    node.send_goal("goal", pa.array([1_000_000])).result()
except StoppingError:
    pass
report([event["type"] for event in node][-1])
""",
        COUNT + "\nreport(['ended', threading.active_count()])\n",
    ).run(stop_after=8).expect(0)
    assert flow.reports("client") == ["STOP"]
    assert flow.reports("server") == [["ended", 1]]


def test_a_hand_written_server_works_with_the_helpers(flow: Flow) -> None:
    wire(
        flow,
        """
goal = node.send_goal("goal", pa.array([1]), timeout=20)
report([event["value"][0].as_py() for event in goal])
report([goal.result()["value"][0].as_py(), goal.status])
""",
        """
event = node.next()
goal_id = event["metadata"]["goal_id"]
node.send_output("feedback", pa.array([1]), {"goal_id": goal_id})
node.send_output("feedback", pa.array([2]), {"goal_id": goal_id, "goal_status": "running"})
node.send_output("result", pa.array([3]), {"goal_id": goal_id, "goal_status": "aborted"})
""",
    ).run().expect(0)
    seen, result = flow.reports("client")
    assert set(seen) <= {1, 2}
    assert result == [3, "aborted"]
