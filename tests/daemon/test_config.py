"""dorad.toml: its values, and errors with line and key."""

from pathlib import Path

import pytest

from dorad.daemon.config import ConfigError, NodeSettings, Settings, load, parse

FULL = """
[daemon]
log_level = "debug"

[nodes]
user = "robot"
users = ["camera", "root"]

[realtime]
enabled = true
priority = 20
cpu_affinity = [2, 3]

[agent]
inline = false
"""


def test_every_key_is_optional(tmp_path: Path) -> None:
    assert parse("", "x") == Settings()
    assert load(tmp_path / "missing.toml") == Settings()


def test_everything_can_be_set() -> None:
    settings = parse(FULL, "x")
    assert settings.log_level == "debug"
    assert settings.nodes == NodeSettings("robot", ("camera", "root"))
    assert settings.realtime.enabled
    assert settings.realtime.cpu_affinity == (2, 3)
    assert not settings.agent.inline
    assert parse("[agent]", "x").agent.inline


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[daemon\n", r"x:1:8: not valid TOML: "),
        ('\n[daemon]\n\nlog_level = "lots"\n', r"x:4:13: daemon\.log_level: must be one of debug"),
        ("[nodes]\nuser = 3\n", r"x:2:8: nodes\.user: `3` is not a valid user name"),
        ('[nodes]\nuser = "a b"\n', r"x:2:8: nodes\.user: `a b` is not a valid user name"),
        ("[nodes]\nusers = [1]\n", r"x:2:9: nodes\.users\[0\]: `1` is not a valid user name"),
        ("[nodes]\nusers = 1\n", r"x:2:9: nodes\.users: must be a list, not 1"),
        ("[nodes]\nsandbox = 1\n", r"x:2:11: nodes\.sandbox: must be true or false, not 1"),
        (
            "[realtime]\npriority = true\n",
            r"x:2:12: realtime\.priority: must be a whole number from 1 to 99, not true",
        ),
        ("[realtime]\nenabled = true\npriority = 100\n", r"x:3:12: .* to 99, not 100"),
        ('[realtime]\npolicy = "fife"\n', r"must be one of .* \(did you mean `fifo`\?\)"),
        (
            "[realtime]\ncpu_affinity = [0, -1]\n",
            r"x:2:16: realtime\.cpu_affinity\[1\]: must be a whole number from 0 to 8191, not -1",
        ),
        (
            "[nodes]\n[realtime]\nenable = true\n",
            r"x:3:1: realtime\.enable: unknown key `enable` \(did you mean `enabled`\?\)",
        ),
        ("\n[deamon]\n", r"x:2:2: deamon: unknown key `deamon` \(did you mean `daemon`\?\)"),
        ("daemon = 3\n", r"x:1:10: daemon: must be a section, not 3"),
        ("nodes.user = 3\n", r"x: nodes\.user: `3` is not a valid user name"),
        ("[nodes]\nuser = 2026-01-01\n", r"`2026-01-01` is not a valid user name"),
    ],
)
def test_a_mistake_is_reported_with_line_and_key(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse(text, "x")


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('[logs]\njournal = 1\n[nodes]\nuser = ""\n[daemon]\nlevel = "info"\n', "x")
    assert [problem.split(": ")[1] for problem in caught.value.lines] == [
        "logs.journal",
        "nodes.user",
        "daemon.level",
    ]
    assert str(caught.value).count("; ") == 2


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(tmp_path / "binary")
    with pytest.raises(ConfigError, match="directory"):
        load(tmp_path)


def test_nodes_may_run_only_as_users_that_are_listed() -> None:
    settings = NodeSettings("robot", ("camera",))
    assert [settings.allows(user) for user in ("robot", "camera", "root")] == [True, True, False]
    assert NodeSettings("robot", ("*",)).allows("root")


@pytest.mark.parametrize("user", ["dorad-link", "dorad-agent", "dorad-telemetry"])
def test_no_node_runs_as_a_user_whose_processes_have_keys(user: str) -> None:
    for text in (f'user = "{user}"', f'users = ["{user}"]'):
        with pytest.raises(ConfigError, match=f"nodes cannot run as `{user}`"):
            parse(f"[nodes]\n{text}\n", "x")
    assert not NodeSettings("robot", ("*",)).allows(user)


def test_settings_that_need_a_restart_are_named() -> None:
    before = parse("[realtime]\nenabled = true\n", "f")
    assert (
        parse('[daemon]\nlog_level = "debug"\n[realtime]\nenabled = true', "f").needing_restart(
            before
        )
        == []
    )
    assert parse("[logs]\njournal = false\n", "f").needing_restart(before) == [
        "[realtime]",
        "logs.journal",
    ]
