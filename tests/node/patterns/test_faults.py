"""A server that is killed at random: every call and goal ends in a reply or an error."""

import pytest

from tests.harness.dataflow import Flow
from tests.node.patterns.test_calls import HEAD

CLIENT = """
import random
moments = random.Random(SEED)
ended = {"answer": 0, "error": 0}
threads = []

def call_on(first):
    for n in range(first, first + EACH):
        try:
            assert ask(n, timeout=None) == 2 * n
            ended["answer"] += 1
        except PeerLostError:
            ended["error"] += 1

def pursue():
    for n in range(EACH):
        try:
            goal = node.send_goal("goal", pa.array([n]))
            assert [event["value"][0].as_py() for event in goal] == [0, 1]
            assert goal.result()["value"][0].as_py() == n
            ended["answer"] += 1
        except PeerLostError:
            ended["error"] += 1

threads = [threading.Thread(target=call_on, args=(100 * k,)) for k in range(3)]
threads.append(threading.Thread(target=pursue))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
report(ended)
"""

SERVER = """
import random, signal
# Each process ends at another time, some before the first request.
moments = random.Random(f"SEED {node.restart_count()}")

def die():
    time.sleep(moments.uniform(0, 0.4))
    os.kill(os.getpid(), signal.SIGKILL)

if node.restart_count() < STARTS:
    threading.Thread(target=die, daemon=True).start()

@node.serve("request", "response")
def double(event):
    time.sleep(0.001)
    return pa.array([2 * event["value"][0].as_py()])

@node.serve_goals("goal", "result", feedback="feedback")
def pursue(goal):
    for n in range(2):
        goal.feedback(pa.array([n]))
        time.sleep(0.001)
    return goal.value

node.serve()
"""


def wire(flow: Flow, seed: int, starts: int, each: int) -> Flow:
    def fill(text: str) -> str:
        text = text.replace("SEED", str(seed)).replace("STARTS", str(starts))
        return HEAD + text.replace("EACH", str(each))

    flow.node(
        "client",
        fill(CLIENT),
        inputs={
            "response": {"source": "server/response", "queue_size": 50},
            "feedback": {"source": "server/feedback", "queue_size": 50},
            "result": {"source": "server/result", "queue_size": 50},
        },
        outputs=["request", "goal"],
    )
    return flow.node(
        "server",
        fill(SERVER),
        inputs={"request": "client/request", "goal": "client/goal"},
        outputs=["response", "feedback", "result"],
    )


def explicit(flow: Flow) -> Flow:
    """Name the ways back: one server gives both answers and goals."""
    script = flow.folder / "client.py"
    text = script.read_text().replace('timeout": 20', 'reply": "response", "timeout": 20')
    text = text.replace(
        'node.send_goal("goal", pa.array([n]))',
        'node.send_goal("goal", pa.array([n]), feedback="feedback", result="result")',
    )
    script.write_text(text)
    return flow


@pytest.mark.parametrize("seed", [1, 2])
def test_with_a_restart_policy_every_exchange_ends(flow: Flow, seed: int) -> None:
    explicit(wire(flow, seed, starts=4, each=60))
    flow.nodes[-1] |= {"restart_policy": "on-failure", "restart_delay": 0.05}
    flow.run(deadline=60)  # its last life may end by the signal, too
    (ended,) = flow.reports("client")
    assert ended["answer"] + ended["error"] == 4 * 60
    assert ended["answer"] > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_without_a_restart_policy_every_exchange_ends(flow: Flow, seed: int) -> None:
    explicit(wire(flow, seed, starts=1, each=400))
    assert flow.run(deadline=60).code == 1
    (ended,) = flow.reports("client")
    assert ended["answer"] + ended["error"] == 4 * 400
    assert ended["error"] > 0
