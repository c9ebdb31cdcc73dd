"""Commits a new version of the detector to a local repository, and writes its dataflow."""

import subprocess
from pathlib import Path

from dora.builder import DataflowBuilder

REPOSITORY = Path("detector.git").resolve()
PROGRAM = '''"""A detector that only knows its version."""

from dora import Node

Node()
print("version {version}")
'''


def git(*words: str) -> str:
    """Run git in the repository, and return what it prints."""
    who = ("-c", "user.name=example", "-c", "user.email=example@localhost")
    command = ["git", "-C", str(REPOSITORY), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Make the repository at first, then commit."""
    if not REPOSITORY.exists():
        REPOSITORY.mkdir()
        git("init", "--quiet", "--initial-branch=main")
    version = len(git("rev-list", "--all").split()) + 1
    (REPOSITORY / "main.py").write_text(PROGRAM.format(version=version), encoding="utf-8")
    git("add", "main.py")
    git("commit", "--quiet", "--message", f"Version {version}")
    with DataflowBuilder() as flow:
        flow.add_node("detector", path="main.py", git=f"file://{REPOSITORY}", branch="main")
        flow.to_yaml("dataflow.yml")


if __name__ == "__main__":
    main()
