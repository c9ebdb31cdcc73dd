"""The console on a real terminal, against a real dorad."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.waiting import DEADLINE_S, wait_until

NODE = """\
from dora import Node
node = Node()
for event in node:
    if event["type"] == "INPUT":
        print("tick tack", flush=True)
"""
FLOW = """\
nodes:
  - id: ticker
    path: ticker.py
    restart_policy: always
    restart_delay: 0.1
    inputs: {tick: dora/timer/millis/200}
"""

pytestmark = pytest.mark.skipif(
    shutil.which("tmux") is None, reason="tmux is not installed (apt-get install tmux)"
)


class Terminal:
    """A tmux session of the test."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux.sock"), "-f", "/dev/null"]
        self._env = env | {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}

    def run(self, command: str) -> None:
        self._call("new-session", "-d", "-x", "100", "-y", "30", command)
        self._call("set-option", "-g", "remain-on-exit", "on")

    def _call(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words], env=self._env, capture_output=True, text=True, check=True
        )
        return done.stdout

    def keys(self, *keys: str) -> None:
        self._call("send-keys", *keys)

    @property
    def text(self) -> str:
        return self._call("capture-pane", "-p")

    def until(self, holds: str | Callable[[str], object]) -> str:
        return wait_until(
            lambda: self.text,
            lambda text: holds in text if isinstance(holds, str) else holds(text),
            why=lambda: f"{holds} did not come about:\n{self.text}",
        )

    def end(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def terminal(own_daemon: Daemon) -> Iterator[Terminal]:
    found = Terminal(own_daemon.folder, dict(own_daemon.env))
    yield found
    found.end()


def test_a_killed_node_is_named_its_key_opens_the_logs_and_the_terminal_is_left_clean(
    own_daemon: Daemon, terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "ticker.py").write_text(NODE)
    (tmp_path / "flow.yml").write_text(FLOW)
    own_daemon.dora_ok("start", tmp_path / "flow.yml", "--name", "pick")
    dorafleet = Path(sys.executable).parent / "dorafleet"
    terminal.run(f"sh -c 'trap : INT; {dorafleet} --theme ansi; echo ended with $?; sleep 60'")
    terminal.until("1 of 1 nodes")
    terminal.keys("Escape")
    terminal.until("NEEDS YOU  all is well")
    with own_daemon.client() as client:
        (info,) = client.nodes("pick")
    assert info.pid is not None
    os.kill(info.pid, signal.SIGKILL)
    text = terminal.until("NEEDS YOU  1 new")
    assert "node ticker failed" in text
    terminal.keys("BTab")
    terminal.until(lambda text: "> !" in text and "ticker" in text)
    terminal.keys("l")
    terminal.until("tick tack")
    for _ in range(3):
        terminal.keys("|")
        terminal.until("pipe into: less")
        terminal.keys("Enter")
        terminal.until(lambda text: "tick tack" in text and " esc " not in text)
        terminal.keys("q")
        terminal.until("esc back")
    # ctrl+c ends the program that has the terminal, and not the console.
    terminal.keys("|")
    terminal.until("pipe into: less")
    terminal.keys("C-u", "echo begun; sleep 60", "Enter")
    terminal.until("begun\n")
    terminal.keys("C-c")
    terminal.until("was interrupted")
    terminal.keys("q")
    text = terminal.until("ended with 0")
    assert "esc back" not in text


def test_dora_top_is_the_same_table(own_daemon: Daemon, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "ticker.py").write_text(NODE)
    (tmp_path / "flow.yml").write_text(FLOW)
    own_daemon.dora_ok("start", tmp_path / "flow.yml", "--name", "pick")
    dora = Path(sys.executable).parent / "dora"
    terminal.run(f"sh -c '{dora} top; echo ended with $?; sleep 60'")
    text = terminal.until("1 of 1 nodes")
    assert "ticker" in text and "order: worst" in text
    terminal.keys("c")
    terminal.until("order: cpu")
    terminal.keys("q")
    terminal.until("ended with 0")


def test_without_a_terminal_it_says_what_scripts_use(own_daemon: Daemon) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "dorafleet"],
        env=own_daemon.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 1
    assert "the console needs a terminal (for scripts: `dorafleet robots --json`)" in done.stderr
