"""Sends the robot to two places; the second one is behind the wall."""

from dora import Node

node = Node()
for place in (b"0.5", b"99"):
    goal = node.send_goal("goal", place, timeout=30, cancel="cancel")
    seen = [float(event["value"].to_numpy().tobytes()) for event in goal]
    (position,) = node.call("where", b"", timeout=30, reply="position")["value"].to_pylist()
    where = "in front of the wall" if position < 10 else "in the wall"
    print(f"{place.decode()}: {goal.status} {where}, progress in order: {seen == sorted(seen)}")
