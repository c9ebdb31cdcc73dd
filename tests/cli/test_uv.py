"""`dora run --uv` of a node with a `build`: it runs in its own environment, with pyarrow."""

import sys
from pathlib import Path

from tests.cli.running import dora, write

PACKAGES = Path(sys.prefix, "lib", f"python3.{sys.version_info.minor}", "site-packages")

UV = f"""\
#!/bin/sh
# What of uv is needed, without the network: packages come from the environment of these tests.
echo "uv $*" >>uv.log
case "$1 $2" in
"venv "*)
    for place; do :; done
    exec {sys.executable} -m venv --without-pip "$place" ;;
"pip install")
    case "$*" in
    *pyarrow*) echo {PACKAGES} >"$VIRTUAL_ENV/lib/{PACKAGES.parts[-2]}/site-packages/own.pth" ;;
    *) test -n "$VIRTUAL_ENV" ;;
    esac ;;
esac
"""

SENDER = """
    import sys
    import pyarrow as pa
    from dora import Node
    node = Node()
    node.send_output("out", pa.array([1]))
    print("sent from", sys.prefix)
"""

FLOW = """
    nodes:
      - {id: sender, path: sender.py, build: pip install -e ., outputs: [out]}
"""


def test_a_node_that_is_built_with_uv_can_start(tmp_path: Path) -> None:
    write(tmp_path, FLOW, sender=SENDER)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(UV)
    (tools / "uv").chmod(0o755)
    path = f"{tools}:{Path(sys.executable).parent}:/usr/bin:/bin"
    with dora(tmp_path, "dataflow.yml", "--uv", env={"PATH": path}) as run:
        run.end(0)
        assert f"sent from {tmp_path}/.dora/python-envs/sender\n" in run.out
    made, built, needed = (tmp_path / "uv.log").read_text().splitlines()
    assert made.startswith("uv venv ")
    assert built == "uv pip install -e ."
    assert needed == "uv pip install --quiet pyarrow>=17 numpy"
