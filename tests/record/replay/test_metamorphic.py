"""Recorded live, replayed in steps, and recorded again: the recordings are equal."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings

from dorad.record.mcap.reader import RecordingReader
from tests.record.replay.liveflows import live_flows, logs, prepare

EXAMPLES = 3


def messages(path, topics):
    """Return time, topic, number and values of each message of some topics.

    Two nodes may send at one logical time.
    """
    with RecordingReader(path) as reader:
        assert reader.status == "COMPLETE"
        return sorted(
            (each.time, each.topic, each.sequence, each.decode().array.to_pylist())
            for each in reader.messages(topics=topics)
        )


@pytest.mark.long
@pytest.mark.timeout(900)
@given(live_flows())
@settings(max_examples=EXAMPLES)
def test_a_recording_of_a_replay_equals_its_source_and_replays_to_itself(
    dora, tmp_path_factory, flow
):
    folder = tmp_path_factory.mktemp("flow") / "flow"
    prepare(folder, flow)

    def run(number, *arguments):
        own = folder / f"logs{number}"
        own.mkdir(exist_ok=True)
        done = dora(folder, *arguments, LOGS=str(own))
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}\n{flow}"
        return done.stdout + done.stderr

    # A recording has no `env` of nodes, which may hold secrets.
    replay = ("--step", "--dataflow", "dataflow.yml", "--live", ",".join(flow.live))
    run(0, "record", "dataflow.yml", "-o", "a.mcap", "--exit-when-nodes-finish")
    run(1, "replay", "a.mcap", *replay, "--record", "b.mcap")
    if flow.fixed:
        said = run(9, "diff", "a.mcap", "b.mcap", "--topics", ",".join(flow.fixed))
        assert "messages are equal" in said
    # What was replayed, and what the nodes have sent for it, are a recording like the first one.
    run(9, "record", "cut", "a.mcap", "--exclude", ",".join(flow.live), "-o", "sources.mcap")
    run(9, "record", "merge", "sources.mcap", "b.mcap", "-o", "whole.mcap")
    run(2, "replay", "whole.mcap", *replay, "--assert", "--record", "c.mcap")
    run(9, "diff", "b.mcap", "c.mcap")
    with RecordingReader(folder / "b.mcap") as reader:
        sent = [topic for topic in reader.topics() if not topic.startswith("dora/")]
    assert messages(folder / "b.mcap", sent) == messages(folder / "c.mcap", sent)
    live, first, second = (logs(folder / f"logs{number}") for number in range(3))
    assert first == second
    for node, received in first.items():
        stamps = [stamp for _, stamp, _ in received]
        assert stamps == sorted(stamps), node  # the order between inputs is that of times
        by_input = [
            {
                name: [values for each, _, values in of if each == name]
                for name in Counter(each for each, _, _ in of)
            }
            for of in (live[node], received)
        ]
        for name in by_input[0]:
            if f"{node}/each_{name}" in flow.fixed:
                assert by_input[0][name] == by_input[1][name], f"{node}/{name}"
