"""The nodes that a plan names are those that the robot then replaces, and no others."""

from pathlib import Path
from typing import Any

import asyncssh
import yaml

from dorad.agent.assignments import compose
from dorad.agent.assignments.files import TreeLibrary
from dorad.agent.assignments.model import Applied, Revision
from dorad.release.changes import changed_nodes
from dorad.release.machine import this_machine
from dorad.release.manifest import Manifest
from dorad.release.signature import ALLOWED, Signers
from dorad.release.trees import Trees
from dorafleet.release.build import BuildOptions, build
from dorafleet.release.signingkey import choose
from dorafleet.release.store import Store
from dorafleet.rollout.plan import with_params
from tests.release.samples import public

CAMERA = {"path": "camera.py", "inputs": {"tick": "dora/timer/millis/100"}, "outputs": ["image"]}
ARM = {"path": "arm.py", "inputs": {"image": "camera/image"}, "deploy": {"labels": {"arm": "1"}}}
LOG = {"path": "arm.py", "inputs": {"image": "camera/image"}}
FILES = {
    "camera.py": "import lib.lens\n",
    "lib/lens.py": "",
    "arm.py": "",
    "notes.txt": "",
    "more/camera.py": "",
    "more/arm.py": "",
}
QUEUE = {"tick": {"source": "dora/timer/millis/100", "queue_size": 2}}
CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a program": ({"files": {"arm.py": "#\n"}}, {"arm"}),
    "a module that it imports": ({"files": {"lib/lens.py": "#\n"}}, {"camera"}),
    "a file of no node": ({"files": {"notes.txt": "#\n"}}, {"arm", "camera"}),
    "inputs": ({"camera": {"inputs": QUEUE}}, set()),
    "a variable": ({"arm": {"env": {"SPEED": "2"}}}, {"arm"}),
    "a variable of all": ({"flow": {"env": {"LEVEL": "debug"}}}, {"arm", "camera"}),
    "a policy": ({"arm": {"restart_policy": "always"}}, {"arm"}),
    "a declared parameter": ({"camera": {"params": {"gain": 1}}}, {"camera"}),
    "a parameter of the rollout": ({"params": {"camera/gain": 3}}, {"camera"}),
    # The programs that belong to no node then may be used by any.
    "the folder of all": ({"flow": {"deploy": {"working_dir": "more"}}}, {"arm", "camera"}),
    "labels of all": ({"flow": {"deploy": {"labels": {"zone": "hall"}}}}, {"camera"}),
    "a new node": ({"log": LOG}, {"log"}),
    "a key that no node has": ({"flow": {"safe_to_update": "true"}}, set()),
}
"""Changes of the dataflow, and the nodes that are started for each of them."""


class Both:
    """An operator who builds releases and plans, and the robot that switches to each of them."""

    def __init__(self, folder: Path) -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / "key")
        (folder / "key").chmod(0o600)
        (folder / ALLOWED).write_text(f"ada {public(key)}\n")
        self._folder = folder
        self._store = Store(folder / "store")
        self._key = choose(str(folder / "key"))
        self._trees = Trees(folder / "robot", Signers(folder))
        self._library = TreeLibrary(self._trees)
        self._applied: Applied | None = None
        self._before: Manifest | None = None

    def _build(self, change: dict[str, Any]) -> Manifest:
        nodes: dict[str, dict[str, Any]] = {
            "camera": CAMERA | change.get("camera", {}),
            "arm": ARM | change.get("arm", {}),
        }
        if "log" in change:
            nodes["log"] = change["log"]
        flow = {"nodes": [{"id": id_, **node} for id_, node in nodes.items()]}
        text = yaml.safe_dump(flow | change.get("flow", {}))
        folder = self._folder / "flow"
        files = FILES | change.get("files", {}) | {"dataflow.yml": text}
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        options = BuildOptions(name="flow")
        bundle = build(folder / "dataflow.yml", self._store, self._key, options).bundle
        self._trees.put_manifest(bundle.content, bundle.signature)
        for each in self._trees.lacking(bundle.manifest):
            with self._trees.objects.open_partial(each.sha256) as file:
                file.write(self._store.objects.read(each))
            self._trees.objects.finish(each)
        self._library.stage(self._id(bundle.manifest))
        return bundle.manifest

    def _id(self, manifest: Manifest) -> str:
        return next(each.id for each in self._store.all() if each.manifest == manifest)

    def switch(self, change: dict[str, Any]) -> tuple[set[str], set[str]]:
        """Return the nodes that are started by the plan, and those that the robot starts."""
        manifest, params = self._build(change), change.get("params", {})
        library, applied = self._library, self._applied
        known = {} if applied is None else applied.revision.params
        planned = changed_nodes(self._before, manifest, this_machine())
        plan = with_params(planned, known, params)
        release = self._id(manifest)
        olds = set() if applied is None else set(applied.nodes.values())
        changed = {each: library.changed(each, release) for each in olds}
        revision = Revision(release, params)
        after = compose.applied_after(applied, revision, library.bundle(release), changed)
        before = None if applied is None else self._content(applied)
        started = compose.replaced(before, self._content(after))
        self._applied, self._before = after, manifest
        return {*plan.added, *plan.replaced}, set(started)

    def _content(self, applied: Applied) -> Any:
        path = self._folder / "dataflow.yml"
        return compose.content_of(applied, "u", "r1", path, self._library.bundle, path.parent)


def test_the_robot_starts_exactly_the_nodes_of_the_plan(tmp_path: Path) -> None:
    both = Both(tmp_path)
    assert both.switch({}) == ({"arm", "camera"},) * 2
    for name, (change, nodes) in CHANGES.items():
        assert both.switch(change) == (nodes, nodes), name
        back = nodes - {"log"}
        assert both.switch({}) == (back, back), f"{name}, undone"
    for (change, _), (other, _) in zip(CHANGES.values(), [*CHANGES.values()][1:], strict=False):
        for each in (change, other):
            planned, started = both.switch(each)
            assert planned == started, each
