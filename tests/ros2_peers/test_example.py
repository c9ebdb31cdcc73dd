"""The example `ros2-action`, with its client as a real node of ROS 2."""

import shutil
import signal
import subprocess
from pathlib import Path

from tests.examples.conftest import BIN, EXAMPLES, Example, finish
from tests.harness.dataflow import clean_environment
from tests.harness.ports import free_port


def test_the_action_of_the_example_does_what_its_readme_says(
    tmp_path: Path, ros: Path, domain: int
) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLES / "ros2-action", folder)
    file = folder / "dataflow.yml"
    setup = f"    ros2:\n      setup: {ros}\n      domain_id: {domain}\n"
    file.write_text(file.read_text().replace("    ros2:\n", setup))
    env = clean_environment(BIN, {"DORA_DAEMON_LOCAL_LISTEN_PORT": str(free_port())})
    with Example(folder, env).start() as run:
        client = subprocess.run(
            [ros / "bin/python", "-u", "client.py"],
            cwd=folder,
            env=clean_environment(ros / "bin", {"ROS_DOMAIN_ID": str(domain)}),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=90,
        )
        run.send_signal(signal.SIGINT)
        assert finish(run).code == 0
    readme = (folder / "README.md").read_text()
    assert "".join(f"    {line}\n" for line in client.stdout.splitlines()) in readme
