"""`dora topic`."""

import contextlib
import datetime
import decimal
import json
import math
import os
import pty
import signal
import subprocess

import pyarrow as pa
import pytest

from dorad.cli.topic_echo import brief, milliseconds, to_json
from dorad.cli.topic_hz import rows
from dorad.control import messages as m
from dorad.control.arrays import to_ipc
from tests.cli.dora import DEADLINE_S, DORA, dora
from tests.cli.fakedaemon import UUID
from tests.harness.commands import fails, succeeds

TOPICS = m.TopicList(
    dataflow=UUID,
    topics=[
        m.TopicInfo(
            node="talker", output="count", subscribers=[m.Subscriber(node="sink", input="c")]
        ),
        m.TopicInfo(node="talker", output="text", subscribers=[], type="std/core/v1/String"),
    ],
)


def rate(topic, hz, **values):
    given = {"bandwidth": hz * 1000, "count": int(hz * 2), "samples": max(0, int(hz * 2) - 1)}
    return m.TopicRate(topic=topic, hz=hz, **{**given, **values})


COUNT = rate("talker/count", 20.0, mean_ms=50.0, min_ms=49.0, max_ms=51.0, std_ms=0.5)
TEXT = rate("talker/text", 0.0)


def message(topic, values, dropped=0, **metadata):
    header = m.TopicHeader(stream=0, topic=topic, sequence=1, dropped=dropped, metadata=metadata)
    return header, b"" if values is None else bytes(to_ipc(pa.array(values)))


@pytest.fixture
def topics(daemon):
    daemon.answers["topic.list"] = TOPICS
    edge = dict.fromkeys(("queue_size", "sent", "received", "dropped", "queued", "payload"), 0)
    rates = dict.fromkeys(("rate", "drop_rate", "bandwidth", "latency", "jitter"), 0.0)
    slow = {"latency_p50": 0.0001, "latency_p99": 0.0004, "latency_worst": 0.0005}
    edges = [
        m.EdgeStats(dataflow=UUID, source=source, target="sink/c", **edge, **rates, **figures)
        for source, figures in (("talker/count", slow), ("talker/text", {}))
    ]
    daemon.answers["top"] = m.Top(at=1.0, window=2.0, nodes=[], edges=edges)
    daemon.answers["topic.watch"] = lambda _: [m.TopicRates(at=1.0, rates=[COUNT, TEXT])] * 2
    return daemon


def test_list_shows_the_receivers(topics):
    assert topics.dora("topic", "list").stdout.splitlines() == [
        "Node    Name   Subscribers",
        "talker  count  sink/c",
        "talker  text",
    ]
    first, second = topics.dora("topic", "list", "-d", "demo", "-f", "json").stdout.splitlines()
    assert json.loads(first) == {"node": "talker", "name": "count", "subscribers": ["sink/c"]}
    assert json.loads(second)["subscribers"] == []


def test_hz_prints_a_table_with_tabs_and_all_topics_together(topics):
    result = topics.dora("topic", "hz", "--duration", "1", "--window", "5")
    assert result.stdout.splitlines() == [
        "topic\tavg_ms\tavg_hz\tmin_ms\tmax_ms\tstd_ms\tsamples",
        "ALL\t50.00\t20.00\t49.00\t51.00\t0.50\t39",
        "talker/count\t50.00\t20.00\t49.00\t51.00\t0.50\t39",
        "talker/text\t-\t0.00\t-\t-\t-\t0",
    ]
    assert topics.asked("topic.watch") == [m.TopicWatch(dataflow=UUID, window=5)]


def test_hz_ends_with_the_dataflow(topics):
    topics.answers["topic.watch"] = [m.TopicRates(at=1.0, rates=[COUNT])]
    result = topics.dora("topic", "hz", "talker/count", "--duration", "60", "-f", "json")
    assert json.loads(result.stdout) == {
        "topic": "talker/count",
        "avg_ms": 50.0,
        "avg_hz": 20.0,
        "min_ms": 49.0,
        "max_ms": 51.0,
        "std_ms": 0.5,
        "samples": 39,
    }
    assert topics.asked("topic.watch")[0].topics == ["talker/count"]


def test_hz_without_a_terminal_needs_a_duration(topics):
    fails(topics.dora("topic", "hz"), 2, "--duration")


def test_hz_on_a_terminal_runs_until_control_c(topics):
    topics.answers["topic.watch"] = [m.TopicRates(at=1.0, rates=[COUNT]), ...]
    ours, theirs = pty.openpty()
    env = {**os.environ, "DORA_SOCKET": str(topics.socket), "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([*DORA, "topic", "hz"], stdout=theirs, env=env) as process:
        os.close(theirs)
        shown = b""
        while b"talker/count" not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            while more := os.read(ours, 4096):
                shown += more
    os.close(ours)
    assert process.returncode == 0
    assert b"ALL\t50.00\t20.00" in shown


def test_the_row_of_all_topics_is_the_merged_stream():
    merged = rate("ALL", 30.0, mean_ms=33.0, min_ms=0.5, max_ms=51.0, std_ms=20.0, samples=60)
    everything, *_ = rows(m.TopicRates(at=1.0, rates=[COUNT], merged=merged))
    assert everything == ("ALL", "33.00", "30.00", "0.50", "51.00", "20.00", "60")


def test_of_several_machines_the_row_of_all_topics_adds_rates_and_pools_deviations():
    other = rate("b", 10.0, mean_ms=100.0, min_ms=90.0, max_ms=130.0, std_ms=1.0, samples=39)
    everything, *_ = rows(m.TopicRates(at=1.0, rates=[COUNT, other]))
    deviation = math.sqrt((0.5**2 + 1.0**2) / 2)
    assert everything == ("ALL", "33.33", "30.00", "49.00", "130.00", f"{deviation:.2f}", "78")


def test_info_shows_type_rate_and_receivers(topics):
    topics.answers["topic.subscribe"] = [message("talker/count", [1])]
    result = topics.dora("topic", "info", "talker/count", "--duration", "1")
    assert result.stdout.splitlines() == [
        "Topic: talker/count",
        "",
        "Type: int64",
        "",
        "Publisher:",
        "  * talker (20.0 Hz)",
        "",
        "Subscribers:",
        "  * sink/c",
        "",
        "Statistics:",
        "  Total messages: 40",
        "  Bandwidth: 0.16 Mbps",
        "  Latency to sink/c: p50 0.100 ms, p99 0.400 ms, worst 0.500 ms",
        "",
        "Topic: talker/text",
        "",
        "Type: std/core/v1/String",
        "",
        "Publisher:",
        "  * talker (0.0 Hz)",
        "",
        "Subscribers:",
        "  * none",
        "",
        "Statistics:",
        "  Total messages: 0",
        "  Bandwidth: 0.00 Mbps",
    ]


def test_info_draws_the_last_ten_minutes_of_each_edge(topics):
    curves = m.EdgeCurves(
        dataflow=UUID,
        source="talker/count",
        target="sink/c",
        rate=[None] * 60 + [20.0] * 59 + [10.0],
        drop_rate=[0.0] * 119 + [3.0],
        latency_p50=[None] * 120,
        latency_p99=[None] * 119 + [0.004],
    )
    topics.answers["top.history"] = m.History(at=1.0, step=5.0, edges=[curves])
    topics.answers["topic.subscribe"] = [message("talker/count", [1])]
    words = ("topic", "info", "talker/count", "--duration", "1")
    shown = topics.dora(*words).stdout.splitlines()
    at = shown.index("Last ten minutes to sink/c:")
    assert shown[at + 1].split("  ")[-1] == "10.0/s to 20.0/s, now 10.0/s"
    assert f"rate    {'█' * 30}" in shown[at + 1]
    assert "drops" in shown[at + 2]
    assert shown[at + 3].endswith("4.000 ms to 4.000 ms, now 4.000 ms")
    settings = {"DORA_SOCKET": str(topics.socket), "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [*DORA, *words], env=os.environ | settings, capture_output=True, timeout=DEADLINE_S
    )
    assert f"rate    {'#' * 30}" in done.stdout.decode("latin-1")
    found = json.loads(topics.dora(*words, "-f", "json").stdout.splitlines()[0])
    assert found["history"]["sink/c"]["rate"][-1] == 10.0
    assert found["history"]["sink/c"]["step"] == 5.0


def test_info_shows_what_an_input_lacks_and_why(topics):
    counts = {"lost": 3, "dropped": 2, "unreadable": 1}
    for name, count in counts.items():
        setattr(topics.answers["top"].edges[0], name, count)
    topics.answers["topic.subscribe"] = [message("talker/count", [1])]
    words = ("topic", "info", "--duration", "1")
    line = "  Not received by sink/c: 3 lost before talker had them, 2 dropped, 1 could not be read"
    assert topics.dora(*words).stdout.splitlines().count(line) == 1
    first = json.loads(topics.dora(*words, "-f", "json").stdout.splitlines()[0])
    assert first["missing"] == {"sink/c": counts}


def test_info_on_a_terminal_says_what_it_waits_for_and_small_rates_have_figures(topics):
    small = rate("talker/count", 20.0, bandwidth=200.0)
    topics.answers["topic.watch"] = lambda _: [m.TopicRates(at=1.0, rates=[small])]
    topics.answers["topic.subscribe"] = [message("talker/count", [1])]
    ours, theirs = pty.openpty()
    env = {**os.environ, "DORA_SOCKET": str(topics.socket)}
    words = ["topic", "info", "--duration", "1"]
    done = subprocess.run(
        [*DORA, *words], stdout=subprocess.PIPE, stderr=theirs, env=env, text=True, check=True
    )
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert "measures for 1 s ..." in said
    assert "waits for a message of talker/count ..." in said
    assert "  Bandwidth: 1.60 kbps" in done.stdout.splitlines()


def test_info_as_json(topics):
    topics.answers["topic.subscribe"] = [message("talker/count", [1])]
    first, second = map(
        json.loads, topics.dora("topic", "info", "--duration", "1", "-f", "json").stdout.split()
    )
    assert first["subscribers"] == ["sink/c"]
    slow = {"p50_ms": 0.1, "p99_ms": 0.4, "worst_ms": 0.5}
    assert (first["latencies"], second["latencies"]["sink/c"]["p50_ms"]) == ({"sink/c": slow}, None)
    assert (first["hz"], first["messages"], first["type"]) == (20.0, 40, "int64")
    assert second["type"] == "std/core/v1/String"


@pytest.mark.parametrize(
    ("values", "kind", "stream"),
    [
        (pa.array([{"x": 1.5}]), "struct<x: double>", False),
        (pa.array(["a"], pa.string_view()), "string_view", True),
    ],
)
def test_info_names_a_type_whose_arrays_travel_as_a_stream(topics, values, kind, stream):
    topics.answers["topic.subscribe"] = [message("talker/count", values)]
    words = ("topic", "info", "talker/count", "--duration", "1")
    suffix = ", which travels as an Arrow stream" if stream else ""
    assert f"Type: {kind}{suffix}" in topics.dora(*words).stdout.splitlines()
    found, _ = map(json.loads, topics.dora(*words, "-f", "json").stdout.splitlines())
    assert (found["type"], found["stream"]) == (kind, stream)


def test_info_says_how_a_topic_reaches_other_machines_or_why_it_does_not(topics):
    counts = {"outgoing": True, "messages": 9, "lost": 2, "queued": 3}
    links = [
        m.LinkChannel(output="talker/count", machine="arm1", **counts),
        m.LinkChannel(output="talker/count", machine="arm2", problem="router gone", **counts),
    ]
    links[0].line = m.LineUse(
        bytes_per_s=5000,
        bytes_on_the_way=200,
        waiting=4,
        dropped=7,
        wait=90,
        backpressure=False,
    )
    topic = m.TopicInfo(node="talker", output="count", subscribers=[], type="int", links=links)
    topics.answers["topic.list"] = m.TopicList(dataflow=UUID, topics=[topic])
    words = ("topic", "info", "talker/count", "--duration", "1")
    assert [line for line in topics.dora(*words).stdout.splitlines() if "machine" in line] == [
        "  * machine arm1 (9 messages, 2 lost, 3 on the way)",
        "  * machine arm2 (9 messages, 2 lost, 3 on the way): no link, router gone",
    ]
    found = json.loads(topics.dora(*words, "-f", "json").stdout)
    assert [each["problem"] for each in found["machines"]] == [None, "router gone"]
    shown = topics.dora(*words).stdout.splitlines()
    at = shown.index("  * machine arm1 (9 messages, 2 lost, 3 on the way)")
    assert shown[at + 1 : at + 4] == [
        "      sends 40.00 kbps, 100% of what is sent there",
        "      0.2 kB on the way; at the link 4 messages wait, 7 dropped",
        "      the line is slow: messages wait for it 90% of the time",
    ]
    first, second = [each["line"] for each in found["machines"]]
    assert (first["dropped"], first["wait_percent"], first["slow_line"]) == (7, 90, True)
    assert second is None


def test_echo_prints_json_lines_with_the_time_in_ms(daemon):
    sent = "2026-01-02T03:04:05.678+00:00"
    daemon.answers["topic.subscribe"] = [
        message("talker/text", ["hi"], timestamp=sent, seq=3),
        message("talker/text", None),
    ]
    first, second = daemon.dora("topic", "echo", "--format", "json").stdout.splitlines()
    assert json.loads(first) == {
        "timestamp": milliseconds(sent),
        "name": "talker/text",
        "data": ["hi"],
        "metadata": {"seq": 3},
    }
    assert json.loads(second)["data"] is None


def test_echo_for_people_is_one_line_a_message(daemon):
    daemon.answers["topic.subscribe"] = [message("talker/count", [1, 2], seq=3)]
    result = daemon.dora("topic", "echo", "talker/count")
    assert result.stdout == 'talker/count\tdata=[1,2] metadata={"seq":3}\n'
    (asked,) = daemon.asked("topic.subscribe")
    assert asked == m.TopicSubscribe(dataflow=UUID, topics=["talker/count"])


@pytest.mark.parametrize("form", ["json", "table"])
def test_echo_does_not_expand_a_few_bytes_to_very_many_values(daemon, form):
    nulls = pa.Array.from_buffers(pa.null(), 2**40, [None])
    lists = pa.array([[0] * 200_000], pa.list_(pa.int8()))
    views = pa.ListViewArray.from_arrays([0] * 16_000, [200_000] * 16_000, lists.values)
    arrays = {"a/nulls": nulls, "a/views": views, "a/b": lists}
    daemon.answers["topic.subscribe"] = [message(topic, array) for topic, array in arrays.items()]
    first, second, third = daemon.dora("topic", "echo", "--format", form).stdout.splitlines()
    if form == "table":
        assert first.startswith("a/nulls\tdata=[null,null,")
        assert first.endswith(",...] (1099511627776 values of null) metadata={}")
        assert second.endswith("\tdata=[...] (16000 values of list_view<item: int8>) metadata={}")
        assert len(third) > 400_000
    else:
        shown = json.loads(first)
        assert (shown["data"], shown["omitted"]) == (None, "1099511627776 values of null")
        assert json.loads(second)["omitted"] == "16000 values of list_view<item: int8>"
        assert json.loads(third)["data"] == [[0] * 200_000]
        assert "omitted" not in json.loads(third)


def test_echo_ends_after_a_count(daemon):
    daemon.answers["topic.subscribe"] = [*[message("a/b", [i]) for i in range(3)], ...]
    out = succeeds(daemon.dora("topic", "echo", "--count", "2"))
    assert len(out.splitlines()) == 2


def test_echo_ends_after_a_time_without_messages(daemon):
    daemon.answers["topic.subscribe"] = [message("a/b", [1]), ...]
    for duration in ("0.5", "2", "10"):  # a busy machine may need that for its start alone
        out = succeeds(daemon.dora("topic", "echo", "--duration", duration))
        if out:
            break
    assert len(out.splitlines()) == 1


def test_echo_reports_displaced_messages_at_its_end(daemon):
    daemon.answers["topic.subscribe"] = [message("a/b", [1]), message("a/b", [9], dropped=7)]
    result = daemon.dora("topic", "echo")
    assert result.stderr == "note: 7 messages were displaced on a/b: read too slowly\n"


def test_pub_sends_json_the_requested_number_of_times(daemon):
    daemon.answers["topic.publish"] = m.Published(messages=1, subscribers=2)
    result = daemon.dora("topic", "pub", "a/b", "[1, 2]", "--count", "300")
    assert result.returncode == 0
    assert result.stderr == "published to a/b 300 times, 2 subscribers\n"
    sent = daemon.asked("topic.publish")
    assert [value for part in sent for value in part.data] == [[1, 2]] * 300


def test_pub_reads_a_file_and_takes_metadata(daemon, tmp_path):
    daemon.answers["topic.publish"] = m.Published(messages=1, subscribers=1)
    (tmp_path / "data.json").write_text('{"x": -1}')
    words = ("--file", "data.json", "--metadata", '{"request_id": "7"}', "-d", "demo")
    assert daemon.dora("topic", "pub", "a/b", *words, cwd=tmp_path).returncode == 0
    (sent,) = daemon.asked("topic.publish")
    assert (sent.data, sent.metadata, sent.dataflow) == ([{"x": -1}], {"request_id": "7"}, "demo")


@pytest.mark.parametrize(
    ("given", "message"),
    [(b"\xff", "cannot read -: it is not UTF-8"), (b" " * (5 << 20), "- is larger than 4 MB")],
)
def test_pub_reads_only_text_of_a_bounded_size(given, message):
    result = subprocess.run(
        [*DORA, "topic", "pub", "a/b", "--file", "-"],
        input=given,
        capture_output=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert (result.returncode, result.stderr.decode()) == (1, f"error: {message}\n")
    assert dora("topic", "pub", "a/b", "--file", "/dev/zero").stderr == (
        "error: cannot read /dev/zero: not a regular file\n"
    )


@pytest.mark.parametrize(
    "words", [["a/b"], ["a/b", "1", "--file", "x"], ["a/b", "{"], ["a/b", "1", "--metadata", "2"]]
)
def test_pub_with_a_wrong_message_is_a_usage_error(daemon, words):
    assert daemon.dora("topic", "pub", *words).returncode == 2
    assert daemon.calls == []


def test_a_negative_number_can_be_published(daemon):
    daemon.answers["topic.publish"] = m.Published(messages=1, subscribers=1)
    assert daemon.dora("topic", "pub", "a/b", "-1.5").returncode == 0
    assert daemon.asked("topic.publish")[0].data == [-1.5]


def test_a_long_array_is_cut_for_people():
    assert brief(pa.array(range(1000))) == (
        "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,...] (1000 values of int64)"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([math.nan, {"a": math.inf}, 1.5], '[null,{"a":null},1.5]'),
        (b"\x00\xff", '"00ff"'),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), '"2026-01-02T00:00:00+00:00"'),
        (datetime.timedelta(seconds=1.5), "1.5"),
        (decimal.Decimal("1.10"), '"1.10"'),
        ("ü", '"ü"'),
    ],
)
def test_values_without_a_json_form_are_still_valid_json(value, text):
    assert to_json(value) == text
