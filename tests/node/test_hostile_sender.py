"""A sender that writes nonsense into its receiver's mailbox, in a running dataflow."""

import time

from tests.harness.dataflow import Flow

SENDER = """
import time
from dora import Node
from dorad.shm.layout import ENTRY

node = Node()
node.send_output("out", b"1")
(outlet,) = node._attachment.connection.outlets["out"]

def push(**wrong):
    fields = dict(stamp=time.time_ns(), length=1, nulls=0, size=1, offset=0, meta_offset=0)
    fields |= dict(segment=0, meta_segment=0, meta_size=0, code=5, spare=0, flags=0)
    outlet.push(ENTRY.pack(*(fields | wrong).values()) + b"x", 1, fields["stamp"])
    outlet.peer.wake()
"""

RECEIVER = """
from dora import Node
from probe import report

node = Node()
for event in node:
    if event["type"] in ("INPUT", "ERROR"):
        report([event["type"], str(event.get("error"))])
report(node.timestamp().timestamp())
"""


def _run(flow: Flow, sender: str) -> str:
    flow.node("sender", SENDER + sender, outputs=["out"])
    flow.node("receiver", RECEIVER, inputs={"in": {"source": "sender/out", "queue_size": 100}})
    outcome = flow.run()
    outcome.expect(0)
    return outcome.output


def test_a_bad_entry_is_an_error_event_and_is_counted(flow: Flow) -> None:
    output = _run(
        flow,
        """
push(size=4 << 20, length=4 << 20)
push(segment=1, size=4 << 20, length=4 << 20)
push(code=99)
node.send_output("out", b"2")
""",
    )
    *events, _ = flow.reports("receiver")
    assert [kind for kind, _ in events] == ["INPUT", "ERROR", "ERROR", "ERROR", "INPUT"]
    assert "a message on input 'in' cannot be read: " in events[1][1]
    assert "3 of 5 messages on sender/out -> receiver/in could not be read" in output


def test_a_message_of_the_year_2053_arrives_and_moves_no_clock(flow: Flow) -> None:
    output = _run(
        flow,
        """
push(stamp=2_626_000_000 * 10**9)
push(stamp=(1 << 64) - 1)
node.send_output("out", b"2")
""",
    )
    *events, now = flow.reports("receiver")
    assert [kind for kind, _ in events] == ["INPUT"] * 4
    assert abs(now - time.time()) < 60
    assert "a message is dated 2053-03-" in output
