"""The systems that are measured: ours, and the peers in a separate environment."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwtests.bench.cases import Flow
from hwtests.bench.descriptor import NODES, flow_yaml, program
from hwtests.bench.process import MeasurementError, environment, run
from hwtests.bench.results import figures_of
from hwtests.bench.stats import Key

ROOT = Path(__file__).parents[2]
PEER_PACKAGES = ("dora-rs==1.1.0", "dora-rs-cli==1.1.0", "iceoryx2==0.10.0", "numpy", "pyarrow")


@dataclass(frozen=True, slots=True)
class System:
    """A daemon with its command line, in the virtual environment it is installed in."""

    name: str
    venv: Path

    @property
    def dora(self) -> Path:
        """Its ``dora`` command."""
        return self.venv / "bin" / "dora"

    def measure(self, flow: Flow) -> Iterator[tuple[Key, float]]:
        """Run one dataflow; return its figures.

        Raises:
            MeasurementError: it fails, is late, or a node reports nothing usable.
        """
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            place = Path(folder)
            file = place / "dataflow.yml"
            compile_nodes(flow, place)
            file.write_text(flow_yaml(flow, place), encoding="utf-8")
            ended = run([self.dora, "run", file], environment(self.venv), place, flow.deadline_s)
            if flow.kind == "hello":
                yield Key(flow.measure, self.name, 0, "s"), ended.seconds
                yield Key(f"{flow.measure}, CPU", self.name, 0, "s"), ended.cpu_s
                return
            reports = {
                node.id: _report(place / f"{node.id}.json", ended.output) for node in flow.nodes
            }
        try:
            yield from figures_of(flow, self.name, reports)
        except ValueError as error:
            raise MeasurementError(f"{flow.measure} under {self.name}: {error}") from error

    def measure_help(self) -> tuple[Key, float]:
        """Return the seconds that ``dora --help`` takes.

        Raises:
            MeasurementError: it fails.
        """
        ended = run([self.dora, "--help"], environment(self.venv), Path.cwd(), 20.0)
        return Key("dora --help", self.name, 0, "s"), ended.seconds

    def measure_list(self) -> tuple[Key, float]:
        """Return the seconds that ``dora list`` takes with an idle daemon.

        Raises:
            MeasurementError: it fails.
        """
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            place = Path(folder)
            own = {"XDG_RUNTIME_DIR": folder, "XDG_STATE_HOME": folder}
            env = environment(self.venv) | own
            run([self.dora, "up"], env, place, 20.0)
            try:
                run([self.dora, "list"], env, place, 20.0)
                ended = run([self.dora, "list"], env, place, 20.0)
            finally:
                run([self.dora, "down"], env, place, 20.0)
        return Key("dora list", self.name, 0, "s"), ended.seconds


def compile_nodes(flow: Flow, place: Path) -> None:
    """Compile the nodes of a dataflow that are in C, with libdora_node of this tree.

    Raises:
        MeasurementError: that fails, for example without a compiler.
    """
    prefix = ROOT / "build" / "native-node"
    flags = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib"]
    commands: list[list[str | Path]] = [
        ["cc", "-O2", NODES / node.file, *flags, "-ldora_node", "-o", program(node, place)]
        for node in flow.nodes
        if node.in_c
    ]
    if commands:
        commands.insert(0, [sys.executable, ROOT / "packaging" / "nodelib.py"])
    for argv in commands:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            words = " ".join(str(word) for word in argv)
            raise MeasurementError(f"{words}: exit code {done.returncode}\n{done.stderr[-3000:]}")


def _report(path: Path, output: str) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MeasurementError(f"node {path.stem} reported nothing\n{output[-3000:]}") from None
    return report


def ensure_peers(venv: Path) -> None:
    """Create the environment of the peers, unless it exists with the same packages.

    Raises:
        MeasurementError: that fails, for example without a network.
    """
    note = venv / "bench-packages.txt"
    wanted = "\n".join(PEER_PACKAGES)
    if note.is_file() and note.read_text(encoding="utf-8") == wanted:
        return
    python = venv / "bin" / "python"
    commands: tuple[list[str | Path], ...] = (
        [sys.executable, "-m", "venv", venv],
        [python, "-m", "pip", "install", "--quiet", *PEER_PACKAGES],
    )
    for argv in commands:
        done = subprocess.run(argv, check=False)
        if done.returncode:
            words = " ".join(str(word) for word in argv)
            raise MeasurementError(f"{words}: exit code {done.returncode}")
    note.write_text(wanted, encoding="utf-8")
