"""A folder with the files of a dataflow and of its modules."""

from pathlib import Path
from textwrap import dedent

import pytest

from dorad.dataflow.errors import DataflowError, Problem
from dorad.dataflow.load import load
from dorad.dataflow.model import Dataflow, NodeSpec


class Project:
    """Files, written as texts, and what is read of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def load(self, **environ: str) -> Dataflow:
        return load("flow.yml", environ=environ)

    def flow(self, text: str, **environ: str) -> Dataflow:
        self.write("flow.yml", text)
        return self.load(**environ)

    def node(self, text: str, node_id: str, **environ: str) -> NodeSpec:
        return self.flow(text, **environ).node(node_id)

    def problems(self, text: str | None = None) -> tuple[Problem, ...]:
        if text is not None:
            self.write("flow.yml", text)
        with pytest.raises(DataflowError) as caught:
            self.load()
        return caught.value.problems

    def errors(self, text: str | None = None) -> list[str]:
        return [str(problem) for problem in self.problems(text)]

    def error(self, text: str | None = None) -> str:
        found = self.errors(text)
        assert len(found) == 1, found
        return found[0]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty folder that is the current one, so that paths in messages are short."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Project(folder)
