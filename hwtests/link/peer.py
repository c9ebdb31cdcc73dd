"""dora 1.1.0 with a coordinator and two daemons on loopback, which know each other's address."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from hwtests.bench.process import MeasurementError, environment, run
from hwtests.link.cases import Case, Times, parse
from hwtests.link.network import LOOPBACK, Network, free_port

NODES = Path(__file__).parent / "nodes"
READY_S = 20.0
DEADLINE_S = 40.0

FLOW = """\
nodes:
  - id: sender
    path: {nodes}/sender.py
    args: {count} {size} {interval}
    deploy: {{machine: one}}
    outputs: [out]
  - id: receiver
    path: {nodes}/receiver.py
    args: {count} {folder}/times
    deploy: {{machine: two}}
    inputs:
      x: {{source: sender/out, queue_size: 1000}}
"""


class Peer:
    """An installed dora 1.1.0. It has no TLS, and no backpressure between machines."""

    def __init__(self, venv: Path, network: Network = LOOPBACK) -> None:
        self._network = network
        self._dora = venv / "bin/dora"
        self._env = environment(venv)

    def measure(self, case: Case, scale: float) -> Times:
        """Run one dataflow over two daemons.

        Raises:
            MeasurementError: it failed, or was late.
        """
        with tempfile.TemporaryDirectory(prefix="dora-peer-") as text:
            folder = Path(text)
            file = folder / "dataflow.yml"
            content = {"nodes": NODES, "folder": folder, "size": case.size}
            count = case.count(scale)
            file.write_text(FLOW.format(count=count, interval=case.interval_s, **content))
            env = self._env | {"HOME": text, "XDG_CONFIG_HOME": text}
            with self._fleet(env, folder) as port:
                command = ["start", str(file), "--coordinator-port", port, "--attach"]
                run(self._command(*command, "--exit-when-nodes-finish"), env, folder, DEADLINE_S)
            try:
                return parse((folder / "times").read_text())
            except FileNotFoundError:
                raise MeasurementError("dora's receiver has written nothing") from None

    def _command(self, *words: str | Path, machine: str = "one") -> list[str | Path]:
        """Return a command of dora that runs on a machine; the coordinator is on `one`."""
        enter = self._network.enter_one if machine == "one" else self._network.enter_two
        return [*enter, self._dora, *words]

    @contextlib.contextmanager
    def _fleet(self, env: Mapping[str, str], folder: Path) -> Iterator[str]:
        """Run a coordinator and the daemons `one` and `two`; yield the coordinator's port."""
        coordinator, *zenoh = (free_port() for _ in range(3))
        port = str(coordinator)
        one, two = self._network.one, self._network.two
        with contextlib.ExitStack() as stack:
            words = ["coordinator", "--port", port, "--store", "memory", "--quiet"]
            if one != two:
                words += ["--interface", "0.0.0.0"]
            stack.enter_context(self._background(env, folder, self._command(*words)))
            self._wait(env, folder, port, 0)
            for number, (name, own, other) in enumerate((("one", one, two), ("two", two, one))):
                words = ["daemon", "--machine-id", name, "--coordinator-port", port, "--quiet"]
                words += ["--coordinator-addr", one]
                words += ["--local-listen-port", str(free_port()), "--zenoh-no-multicast"]
                words += ["--zenoh-listen", f"{own}:{zenoh[number]}"]
                words += ["--zenoh-connect", f"tcp/{other}:{zenoh[1 - number]}"]
                command = self._command(*words, machine=name)
                stack.enter_context(self._background(env, folder, command))
            self._wait(env, folder, port, 2)
            yield port

    @contextlib.contextmanager
    def _background(
        self, env: Mapping[str, str], folder: Path, command: list[str | Path]
    ) -> Iterator[None]:
        with subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield
            finally:
                process.kill()

    def _wait(self, env: Mapping[str, str], folder: Path, port: str, daemons: int) -> None:
        """Wait until the coordinator answers and knows so many daemons."""
        end = time.monotonic() + READY_S
        words = ["cluster", "status"] if daemons else ["list"]
        text = ""
        while time.monotonic() < end:
            with contextlib.suppress(MeasurementError):
                command = self._command(*words, "--coordinator-port", port)
                text = run(command, env, folder, READY_S).output
                if all(name in text for name in ("one", "two")[:daemons]):
                    return
            time.sleep(0.1)
        raise MeasurementError(f"dora's daemons are not ready after {READY_S:g} s\n{text}")
