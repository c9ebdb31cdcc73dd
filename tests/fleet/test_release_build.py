"""Build releases: which files and wheels they have, who signs them, and what is refused."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from contextlib import nullcontext

import asyncssh
import msgspec
import pytest

from dorad.dataflow.load import load
from dorad.launch.command import LaunchContext, command_for
from dorad.release.machine import this_machine
from dorad.release.manifest import encode, id_of
from dorad.release.signature import Signers
from dorad.release.trees import Trees
from dorafleet.cli.main import run_command
from dorafleet.coordinator.messages import Robot
from dorafleet.release.errors import BuildError
from dorafleet.release.signingkey import choose
from dorafleet.release.store import Store
from tests.fleet.sites import UNSET
from tests.release.samples import public, sign

pytestmark = pytest.mark.long

FLOW = """\
nodes:
  - id: camera
    path: camera.py
    env: {MODEL: models/net.bin, SPEED: "${SPEED:-3}"}
    outputs: [image]
  - id: arm
    path: arm.py
    inputs: {image: camera/image}
"""
PYTHON = this_machine().python
TAG = "cp" + PYTHON.replace(".", "")


class Operator:
    """An operator with a key, a store, and a dataflow."""

    def __init__(self, folder, capsys):
        self.folder = folder
        self.flow = folder / "arm"
        self.capsys = capsys
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.key.write_private_key(folder / "key")
        (folder / "key").chmod(0o600)
        self.store = Store(folder / "data/dorafleet/releases")
        for name, content in {
            "dataflow.yml": FLOW,
            "camera.py": "from lib import lens\n",
            "arm.py": "print('arm')\n",
            "lib/__init__.py": "",
            "lib/lens.py": "from . import glass\n",
            "lib/glass.py": "",
            "models/net.bin": "weights",
        }.items():
            self.write(name, content)

    def write(self, name, content):
        path = self.flow / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def run(self, *words):
        code = run_command(("release", *map(str, words)))
        shown = self.capsys.readouterr()
        return code, shown.out, shown.err

    def build(self, *words):
        code, out, err = self.run(
            "build", self.flow / "dataflow.yml", "--key", self.folder / "key", "--json", *words
        )
        assert code == 0, err
        return json.loads(out)

    def refused(self, *words):
        words = (self.flow / "dataflow.yml", "--key", self.folder / "key", *words)
        before = [bundle.id for bundle in self.store.all()]
        code, out, err = self.run("build", *words)
        assert (code, out) == (1, ""), err
        assert [bundle.id for bundle in self.store.all()] == before
        return err

    def paths(self, release):
        return {file.path for file in self.store.find(release).manifest.files}


@pytest.fixture
def operator(tmp_path, capsys, monkeypatch) -> Operator:
    for name in (*UNSET, "SSH_AUTH_SOCK", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return Operator(tmp_path, capsys)


@pytest.fixture
def agent(monkeypatch, tmp_path):
    """A real ssh-agent without keys."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("there is no ssh-agent")
    path = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    # Its socket is there a moment before it listens: `ssh-add` finds no keys (1), or no agent (2).
    while subprocess.run(["ssh-add", "-l"], capture_output=True, timeout=10).returncode != 1:
        assert process.poll() is None
    yield path
    process.send_signal(signal.SIGTERM)
    process.wait(10)


def wheel(folder, name, version, files, *, tag="py3-none-any"):
    """Write a wheel, and return its line in a lock."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    text = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        **files,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in text.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}=={version} --hash=sha256:{digest}\n"


def test_a_key_in_a_file_needs_no_agent_and_one_that_is_gone_is_named(operator, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent/agent")
    key = operator.folder / "key"
    assert choose(str(key)).file == key
    with pytest.raises(BuildError, match=r"the SSH agent at /nonexistent/agent .*ssh-add"):
        choose(None)


def test_a_key_signs_itself_also_if_it_has_a_certificate(operator):
    authority = asyncssh.generate_private_key("ssh-ed25519")
    certificate = authority.generate_user_certificate(operator.key, "ada")
    certificate.write_certificate(operator.folder / "key-cert.pub")
    operator.build()
    (operator.folder / "allowed_signers").write_text(f"ada {public(operator.key)}\n")
    code, out, err = operator.run("verify", "arm", "--signers", operator.folder)
    assert (code, "signed by ada (SHA256:" in out) == (0, True), err


def test_a_release_has_everything_but_what_is_ignored(operator):
    for name in (".env", ".git/config", "__pycache__/a.pyc", "out/x/log.jsonl", "notes.tmp"):
        operator.write(name, "x")
    operator.write("venv/pyvenv.cfg", "")
    operator.write("venv/lib/x.py", "")
    operator.write(".releaseignore", "*.tmp\n!keep.tmp\n/data/\n")
    operator.write("keep.tmp", "x")
    operator.write("data/big", "x")
    built = operator.build()
    assert operator.paths("arm") == {
        "dataflow.yml",
        "camera.py",
        "arm.py",
        "lib/__init__.py",
        "lib/lens.py",
        "lib/glass.py",
        "models/net.bin",
        "keep.tmp",
    }
    assert (built["name"], built["sequence"], built["new"]) == ("arm", 1, True)


def test_the_same_files_give_the_same_bytes(operator, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    one = operator.build("--sequence", "7")
    two = operator.build("--sequence", "7", "--store", operator.folder / "other")
    assert one["release"] == two["release"]
    content = operator.store.find("arm").content
    assert hashlib.sha256(content).hexdigest() == one["release"]
    assert encode(operator.store.find("arm").manifest) == content


def test_without_a_change_the_newest_release_is_named_again(operator):
    one, two = operator.build(), operator.build()
    assert (two["release"], two["new"]) == (one["release"], False)
    operator.write("arm.py", "print('new')\n")
    assert operator.build()["sequence"] == 2


def test_a_change_replaces_only_the_nodes_that_use_the_file(operator):
    operator.build()
    cases = {
        "arm.py": (["arm"], ["camera"]),
        "lib/glass.py": (["camera"], ["arm"]),
        "models/net.bin": (["camera"], ["arm"]),
        "anything.txt": (["arm", "camera"], []),
    }
    for sequence, (name, (replaced, untouched)) in enumerate(cases.items(), 1):
        operator.write(name, f"# {name}\n")
        operator.build()
        words = ("diff", f"arm@{sequence}", f"arm@{sequence + 1}", "--json")
        code, out, err = operator.run(*words)
        assert code == 0, err
        found = json.loads(out)
        assert (found["replaced"], found["untouched"]) == (replaced, untouched), name


def test_rewiring_replaces_no_node(operator):
    operator.build()
    operator.write("dataflow.yml", FLOW.replace("{image: camera/image}", "{picture: camera/image}"))
    operator.build()
    _, out, _ = operator.run("diff", "arm@1", "arm@2", "--json")
    found = json.loads(out)
    assert (found["replaced"], found["untouched"]) == ([], ["camera"])
    assert found["inputs"] == ["arm/image: camera/image → none", "arm/picture: none → camera/image"]


def build_two(operator, one, two):
    for text in (one, two):
        operator.write("dataflow.yml", text)
        operator.build()


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("dora/timer/hz/10", "dora/timer/hz/20", "dora/timer/hz/10 → dora/timer/hz/20"),
        (
            "{source: camera/image, queue_size: 3}",
            "{source: camera/image, queue_size: 4, queue_policy: backpressure}",
            "camera/image queue_size=3 → camera/image queue_size=4 queue_policy=backpressure",
        ),
        (
            "camera/image",
            "{source: camera/image, input_timeout: 2}",
            "camera/image → camera/image input_timeout=2.0",
        ),
    ],
)
def test_changed_inputs_are_said_from_the_manifests_alone(operator, before, after, line):
    one, two = (FLOW.replace("{image: camera/image}", f"{{t: {each}}}") for each in (before, after))
    build_two(operator, one, two)
    for file in (operator.store.folder / "objects").rglob("*"):
        if file.is_file():
            file.unlink()
    code, out, err = operator.run("diff", "arm@1", "arm@2")
    assert code == 0, err
    assert f"inputs changed: arm/t: {line}\n" in out
    assert "nodes untouched: camera\n" in out
    assert "cannot compare" not in out


def test_another_spelling_of_the_same_input_changes_nothing(operator):
    flow = FLOW.replace("camera/image", "{source: camera/image, queue_size: 10}")
    build_two(operator, FLOW, flow)
    _, out, _ = operator.run("diff", "arm@1", "arm@2", "--json")
    found = json.loads(out)
    assert (found["inputs"], found["untouched"]) == ([], ["arm", "camera"])


def test_a_changed_timer_of_a_replaced_node_is_said(operator):
    one, two = (
        FLOW.replace("{image: camera/image}", f"{{t: dora/timer/hz/{hertz}}}") for hertz in (10, 20)
    )
    build_two(operator, one, two.replace("path: arm.py", "path: arm.py\n    args: --fast"))
    _, out, _ = operator.run("diff", "arm@1", "arm@2")
    assert "nodes replaced: arm\n" in out
    assert "inputs changed: arm/t: dora/timer/hz/10 → dora/timer/hz/20\n" in out


OPERATORS = """\
nodes:
  - id: pair
    operators:
      - {id: one, python: arm.py, inputs: {t: dora/timer/hz/HZ}, outputs: [x]}
      - {id: two, python: arm.py, inputs: {x: pair/one/x}}
"""
MODULE = """\
module: {name: eyes}
nodes:
  - id: eye
    path: camera.py
    inputs: {t: dora/timer/hz/HZ}
"""


def test_inputs_of_operators_are_compared(operator):
    build_two(operator, OPERATORS.replace("HZ", "10"), OPERATORS.replace("HZ", "20"))
    _, out, _ = operator.run("diff", "arm@1", "arm@2", "--json")
    found = json.loads(out)
    assert found["inputs"] == ["pair/one/t: dora/timer/hz/10 → dora/timer/hz/20"]
    assert (found["replaced"], found["untouched"]) == ([], [])


def test_inputs_of_nodes_that_a_module_describes_are_compared(operator):
    flow = FLOW + "  - id: head\n    module: eyes.yml\n"
    operator.write("eyes.yml", MODULE.replace("HZ", "10"))
    operator.write("dataflow.yml", flow)
    operator.build()
    operator.write("eyes.yml", MODULE.replace("HZ", "20"))
    operator.build()
    _, out, _ = operator.run("diff", "arm@1", "arm@2", "--json")
    found = json.loads(out)
    assert found["inputs"] == ["head.eye/t: dora/timer/hz/10 → dora/timer/hz/20"]
    assert found["untouched"] == ["arm", "camera"]


def test_a_variable_called_inputs_belongs_to_what_a_node_depends_on(operator):
    one, two = (FLOW.replace("env: {", f"env: {{inputs: {word}, ") for word in ("left", "right"))
    build_two(operator, one, two)
    _, out, _ = operator.run("diff", "arm@1", "arm@2", "--json")
    assert json.loads(out)["replaced"] == ["camera"]


def test_a_release_for_robots_before_inputs_has_the_former_manifest(operator):
    operator.build("--min-dorad", "0.1.9")
    old = operator.store.find("arm").manifest
    assert (old.format, {node.inputs for node in old.nodes.values()}) == (1, {None})
    operator.write("dataflow.yml", FLOW.replace("{image: camera/image}", "{t: dora/timer/hz/1}"))
    operator.build("--min-dorad", "0.2.0")
    assert operator.store.find("arm").manifest.format == 2
    code, out, _ = operator.run("diff", "arm@1", "arm@2")
    assert code == 0
    assert "untouched" not in out
    assert (
        "cannot compare inputs of arm, camera: one of the two manifests was built for dorad before "
        "0.2.0" in out
    )


def test_a_release_that_was_built_before_manifests_had_inputs_is_not_built_again(operator):
    operator.build("--min-dorad", "0.1.9")
    kept = operator.store.find("arm")
    manifest = msgspec.structs.replace(kept.manifest, min_dorad="0.2.0", sequence=2)
    content = encode(manifest)
    operator.store.add(content, sign(content, operator.key))
    again = operator.build("--min-dorad", "0.2.0")
    assert (again["new"], again["release"]) == (False, id_of(content))


def test_a_key_of_the_ssh_agent_signs_and_ssh_keygen_agrees(operator, agent):
    subprocess.run(["ssh-add", "-q", operator.folder / "key"], check=True, timeout=60)
    code, _, err = operator.run("build", operator.flow / "dataflow.yml")
    assert code == 0, err
    bundle = operator.store.find("arm")
    (operator.folder / "signature").write_bytes(bundle.signature)
    (operator.folder / "allowed_signers").write_text(f"ada {public(operator.key)}\n")
    command = ["ssh-keygen", "-Y", "verify", "-n", "dorad-bundle", "-I", "ada"]
    command += ["-f", operator.folder / "allowed_signers", "-s", operator.folder / "signature"]
    subprocess.run(command, input=bundle.content, check=True, timeout=60, capture_output=True)
    code, out, _ = operator.run("verify", "arm", "--signers", operator.folder)
    assert (code, "signed by ada (SHA256:" in out) == (0, True)


def test_which_key_signs_must_be_clear(operator, agent):
    flow = operator.flow / "dataflow.yml"
    code, _, err = operator.run("build", flow)
    assert (code, "the SSH agent has no key" in err) == (1, True)
    for name in ("one", "two"):
        path = operator.folder / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True
        )
        subprocess.run(["ssh-add", "-q", path], check=True, timeout=60)
    code, _, err = operator.run("build", flow)
    assert code == 1
    assert "the SSH agent has 2 keys" in err
    assert "--key" in err
    assert operator.run("build", flow, "--key", "two")[0] == 0
    assert operator.run("build", flow, "--key", operator.folder / "one.pub")[0] == 0
    code, _, err = operator.run("build", flow, "--key", "three")
    assert (code, "neither a file nor a key" in err) == (1, True)


def test_a_signing_key_that_others_may_read_is_refused(operator):
    key = operator.folder / "key"
    key.chmod(0o640)
    code, _, err = operator.run("build", operator.flow / "dataflow.yml", "--key", key)
    assert code == 1
    assert f"the private key in {key}: its mode is 0640 (`chmod 600 {key}`" in err
    assert operator.run("build", operator.flow / "dataflow.yml", "--key", f"{key}.pub")[0] == 1


def test_a_changed_byte_in_the_store_is_found(operator):
    operator.build()
    bundle = operator.store.find("arm")
    path = operator.store.objects.path(bundle.manifest.files[0].object)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    code, _, err = operator.run("verify", "arm")
    assert (code, "are missing or damaged in" in err) == (1, True)
    manifest = operator.store.folder / "manifests" / bundle.id
    manifest.write_bytes(bundle.content.replace(b'"sequence":1', b'"sequence":3'))
    code, _, err = operator.run("show", "arm")
    assert (code, "was changed" in err) == (1, True)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda o: (o.flow / "arm.py").unlink(), "node arm: there is no file arm.py"),
        (lambda o: o.write(".releaseignore", "arm.py\n"), "arm.py is ignored"),
        (lambda o: o.write(".releaseignore", "*.yml\n"), "itself is ignored"),
        (
            lambda o: (
                o.write("dataflow.yml", FLOW.replace("arm.py", "../arm.py"))
                and (o.folder / "arm.py").touch()
            ),
            "is outside the release",
        ),
        (lambda o: (o.flow / "etc").symlink_to("/etc/passwd"), "leads out of the release"),
        (lambda o: (o.flow / "link").symlink_to("lib"), "is a link to a folder"),
        (lambda o: (o.flow / "link").symlink_to("nothing"), "leads nowhere"),
        (lambda o: os.mkfifo(o.flow / "pipe"), "is neither a file nor a folder"),
        (lambda o: o.write("new\nline", ""), "contains a control character"),
    ],
)
def test_files_that_cannot_be_in_a_release_are_refused(operator, prepare, reason):
    prepare(operator)
    assert reason in operator.refused()


def test_a_link_within_the_release_becomes_the_file(operator):
    (operator.flow / "same.py").symlink_to("arm.py")
    operator.build()
    assert "same.py" in operator.paths("arm")


def test_the_folder_can_be_above_that_of_the_dataflow(operator):
    (operator.folder / "shared.py").write_text("print(1)\n")
    operator.write("dataflow.yml", FLOW.replace("arm.py", "../shared.py"))
    (operator.folder / ".releaseignore").write_text("/*\n!/arm/\n!/shared.py\n")
    operator.build("--root", operator.folder)
    bundle = operator.store.find("arm")
    assert bundle.manifest.entry == "arm/dataflow.yml"
    assert "shared.py" in operator.paths("arm")


@pytest.mark.parametrize(
    "words", [("--target", "../x"), ("--target", "x86_64:2.7"), ("--min-dorad", "new")]
)
def test_a_wrong_option_is_a_usage_error(operator, words):
    assert operator.run("build", operator.flow / "dataflow.yml", *words)[0] == 2


def test_a_compiled_program_for_another_machine_is_refused(operator):
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + b"\xb7\x00" + bytes(40)
    (operator.flow / "driver").write_bytes(elf)
    assert operator.build()["targets"][0]["arch"] == "aarch64"
    reason = operator.refused("--target", "x86_64")
    assert "driver is compiled for aarch64; nothing is for the target x86_64" in reason


def elf(machine):
    return b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine + b"\x00" + bytes(40)


ARM, INTEL = elf(b"\xb7"), elf(b"\x3e")
BOTH = ("--target", "aarch64", "--target", "x86_64")


def test_a_node_has_its_program_for_each_target(operator):
    operator.write("dataflow.yml", FLOW.replace("path: arm.py", "path: build-$DORA_ARCH/arm"))
    for arch, content in (("aarch64", ARM), ("x86_64", INTEL)):
        (operator.flow / f"build-{arch}").mkdir()
        (operator.flow / f"build-{arch}" / "arm").write_bytes(content)
    assert [each["arch"] for each in operator.build()["targets"]] == ["aarch64", "x86_64"]
    paths = operator.paths("arm")
    assert {"build-aarch64/arm", "build-x86_64/arm"} <= set(paths)
    assert "build" not in str(operator.store.find("arm").manifest.nodes["camera"])

    (operator.flow / "build-x86_64" / "other").write_bytes(INTEL)
    (operator.flow / "build-x86_64" / "arm").write_bytes(ARM)
    reason = operator.refused(*BOTH)
    assert "node arm: build-x86_64/arm is compiled for aarch64, not for the target x86_64" in reason
    (operator.flow / "build-x86_64" / "arm").unlink()
    assert "node arm: there is no build-x86_64/arm for the target x86_64" in operator.refused(*BOTH)


def test_programs_for_each_target_are_looked_for_where_the_node_runs(operator):
    program = "path: build-$DORA_ARCH/arm\n    deploy: {working_dir: arms}"
    operator.write("dataflow.yml", FLOW.replace("path: arm.py", program))
    for arch, content in (("aarch64", ARM), ("x86_64", INTEL)):
        (operator.flow / "arms" / f"build-{arch}").mkdir(parents=True)
        (operator.flow / "arms" / f"build-{arch}" / "arm").write_bytes(content)
    assert [each["arch"] for each in operator.build()["targets"]] == ["aarch64", "x86_64"]
    (operator.flow / "arms" / "build-x86_64" / "other").write_bytes(INTEL)
    (operator.flow / "arms" / "build-x86_64" / "arm").write_bytes(ARM)
    assert "build-x86_64/arm is compiled for aarch64" in operator.refused(*BOTH)


def test_one_program_for_two_targets_is_refused(operator):
    operator.write("dataflow.yml", FLOW.replace("path: arm.py", "path: ./arm"))
    (operator.flow / "arm").write_bytes(ARM)
    (operator.flow / "other").write_bytes(INTEL)
    for words in (BOTH, ()):
        reason = operator.refused(*words)
        assert "node arm: ./arm is compiled for aarch64, not for the target x86_64" in reason
        assert "write `build-$DORA_ARCH/...`" in reason


def test_wheels_become_an_environment_that_runs_without_pip(operator):
    wheels = operator.folder / "wheels"
    lock = wheel(
        wheels,
        "greeting",
        "1.0",
        {
            "greeting/__init__.py": "def main():\n    print('hello')\n",
            "greeting-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeting:main\n",
            "greeting-1.0.data/scripts/old": "#!python\nprint('old')\n",
            "greeting-1.0.data/data/share/x.txt": "x",
            "greeting-1.0.data/headers/x.h": "",
        },
    )
    lock += wheel(wheels, "only", "1.0", {"only.py": ""}).replace(
        " --hash", " ; python_version < '3.0' --hash"
    )
    (operator.folder / "lock.txt").write_text(lock)
    built = operator.build("--python-lock", operator.folder / "lock.txt", "--wheels", wheels)
    assert built["packages"] == ["greeting 1.0"]
    bundle = operator.store.find("arm")
    signers = operator.folder / "robot-signers"
    signers.mkdir()
    (signers / "allowed_signers").write_text(f"ada {public(operator.key)}\n")
    trees = Trees(operator.folder / "robot", Signers(signers))
    trees.put_manifest(bundle.content, bundle.signature)
    for each in trees.lacking(bundle.manifest):
        trees.objects.add(each, operator.store.objects.path(each))
    tree = trees.stage(bundle.id)
    for name, shown in (("greet", "hello\n"), ("old", "old\n")):
        done = subprocess.run(
            [tree.environment / "bin" / name], capture_output=True, text=True, timeout=30
        )
        assert (done.returncode, done.stdout) == (0, shown), done.stderr
    # The nodes of the dataflow run with it.
    from dorad.launch.command import LaunchContext, command_for

    dataflow = tree.dataflow({})
    command = command_for(dataflow.node("arm"), LaunchContext(dataflow, dict(os.environ)), "{}")
    assert command.argv[0] == str(tree.environment / "bin/python")
    assert command.argv[-1] == str(tree.folder / "files/arm.py")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert (tree.environment / f"lib/python{version}/site-packages/greeting").is_dir()


def pylock(operator, *packages):
    path = operator.folder / "pylock.toml"
    path.write_text('lock-version = "1.0"\ncreated-by = "test"\n' + "".join(packages))
    return path


def locked(name, version, *wheels, marker=""):
    lines = [f'[[packages]]\nname = "{name}"\nversion = "{version}"\n']
    lines += [f'marker = "{marker}"\n'] if marker else []
    digest = f'hashes = {{sha256 = "{"a" * 64}"}}'
    items = [f'{{name = "{each}", url = "https://x.org/{each}", {digest}}}' for each in wheels]
    return "".join([*lines, f"wheels = [{', '.join(items)}]\n"])


def test_a_missing_wheel_is_named_before_anything_is_downloaded(operator):
    lock = pylock(
        operator,
        locked("pure", "1.0", "pure-1.0-py3-none-any.whl"),
        locked("fast", "2.0", "fast-2.0-cp313-cp313-manylinux_2_17_x86_64.whl"),
    )
    reason = operator.refused("--python-lock", lock, "--target", "aarch64:3.13")
    assert "fast" in reason
    assert "aarch64, python 3.13, glibc 2.28" in reason


def test_a_wheel_with_another_hash_is_refused(operator):
    wheels = operator.folder / "wheels"
    wheel(wheels, "pure", "1.0", {"pure.py": ""})
    lock = pylock(operator, locked("pure", "1.0", "pure-1.0-py3-none-any.whl"))
    reason = operator.refused("--python-lock", lock, "--wheels", wheels)
    assert "cannot be downloaded" in reason
    assert "hash" in reason.lower()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("numpy\n", "has no `==` version, or no sha256"),
        ("numpy==2.0\n", "has no `==` version, or no sha256"),
        ("numpy==2.* --hash=sha256:" + "a" * 64, "has no `==` version"),
        ("-r other.txt\n", "is not supported"),
        ("not a line at all\n", "line 1"),
    ],
)
def test_requirements_that_lock_nothing_are_refused(operator, text, reason):
    (operator.folder / "lock.txt").write_text(text)
    assert reason in operator.refused("--python-lock", operator.folder / "lock.txt")


def test_a_wheel_that_leads_out_of_its_folder_is_refused(operator):
    wheels = operator.folder / "wheels"
    (operator.folder / "lock.txt").write_text(
        wheel(wheels, "evil", "1.0", {"../../evil.py": "print('evil')"})
    )
    words = ("--python-lock", operator.folder / "lock.txt", "--wheels", wheels)
    assert "contains '..'" in operator.refused(*words)


def test_targets_are_asked_for_over_ssh_only_when_a_file_is_named(operator):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    file = operator.folder / "cluster.yml"
    file.write_text(
        "coordinator: {addr: 127.0.0.1}\n"
        f"machines: [{{id: arm1, host: 127.0.0.1, port: {port}, user: root}}]\n"
    )
    reason = operator.refused("--for", file)
    assert "arm1: nothing listens" in reason
    assert "--target" in reason


class Robots:
    """A coordinator that knows robots."""

    def __init__(self, operator, monkeypatch):
        self.operator = operator
        self.robots = []
        self._monkeypatch = monkeypatch

    def knows(self, *robots):
        self._monkeypatch.setattr("dorafleet.cli.coordinator.connect", lambda *_: nullcontext())
        found = [Robot(id=id_, host=host, labels={}, **more) for id_, host, more in robots]
        self._monkeypatch.setattr("dorafleet.cli.coordinator.list_robots", lambda _: found)


MACHINE = {"state": "unreachable", "arch": "x86_64", "python": "3.13", "glibc": "2.41"}


def test_a_robot_that_is_off_keeps_no_release_from_being_built(operator, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    file = operator.folder / "cluster.yml"
    hosts = [f"{{id: arm{n}, host: 127.0.0.1, port: {port}, user: root}}" for n in (1, 2)]
    file.write_text(f"coordinator: {{addr: 127.0.0.1}}\nmachines: [{', '.join(hosts)}]\n")
    coordinator = Robots(operator, monkeypatch)
    coordinator.knows(("arm1", "127.0.0.1", MACHINE), ("arm2", "127.0.0.1", {}))
    reason = operator.refused("--for", file)
    assert "arm2: nothing listens" in reason
    assert "arm1" not in reason
    assert "1 of 2 machines do not say what they are, and the coordinator does not know" in reason
    # The same id in another fleet is another machine.
    coordinator.knows(("arm1", "127.0.0.1", MACHINE), ("arm2", "10.0.0.9", MACHINE))
    assert "arm2: nothing listens" in operator.refused("--for", file)
    older = {**MACHINE, "glibc": "2.36"}
    coordinator.knows(("arm1", "127.0.0.1", MACHINE), ("arm2", "127.0.0.1", older))
    built = operator.build("--for", file)
    assert built["targets"] == [{"arch": "x86_64", "python": "3.13", "glibc": "2.36"}]


def test_a_target_that_the_same_robots_run_replaces_no_node(operator, monkeypatch):
    """With `--for` a release is for the C library of the fleet, without for an older one."""
    wheels = operator.folder / "wheels"
    (operator.folder / "lock.txt").write_text(wheel(wheels, "only", "1.0", {"only.py": ""}))
    lock = ("--python-lock", operator.folder / "lock.txt", "--wheels", wheels)
    file = operator.folder / "cluster.yml"
    file.write_text(
        "coordinator: {addr: 127.0.0.1}\nmachines: [{id: arm1, host: 127.0.0.1, user: root}]\n"
    )
    Robots(operator, monkeypatch).knows(("arm1", "127.0.0.1", MACHINE))
    operator.build(*lock, "--for", file)
    words = ("build", operator.flow / "dataflow.yml", "--key", operator.folder / "key", *lock)
    code, out, _ = operator.run(*words, "--target", "x86_64:3.13")
    assert code == 0
    assert "nodes untouched: arm, camera" in out or "no difference" in out
    assert "nodes replaced" not in out
    for target in ((), ("--target", "x86_64:3.13"), ("--target", "x86_64:3.13:2.41")):
        code, out, _ = operator.run("diff", "arm@1", "arm@2", *target)
        assert (code, "nodes replaced" in out) == (0, False), out
    # A machine that could not run the first one changes everything.
    _, out, _ = operator.run("diff", "arm@1", "arm@2", "--target", "x86_64:3.13:2.36")
    assert "nodes replaced: arm, camera" in out
    # A target that an explicit one covers is not built twice.
    built = operator.build(*lock, "--for", file, "--target", "x86_64:3.13", "--sequence", "9")
    assert [each["glibc"] for each in built["targets"]] == ["2.28"]


@pytest.fixture
def cloned(operator, tmp_path):
    """The operator's dataflow with a node from a repository, whose file can be committed anew."""
    origin = tmp_path / "lidar.git"
    origin.mkdir()

    def git(*words):
        identity = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
        subprocess.run(["git", *identity, *words], cwd=origin, check=True, capture_output=True)

    def commit(text):
        (origin / "scan.py").write_text(text)
        (origin / "table.bin").write_text(text)
        git("add", ".")
        git("commit", "--quiet", "-m", "change")

    git("init", "--quiet")
    commit("print(1)\n")
    entry = f"  - id: lidar\n    path: scan.py\n    git: file://{origin}\n"
    operator.write("dataflow.yml", FLOW + entry)
    return commit


def fetch(operator):
    done = subprocess.run(
        [sys.executable, "-m", "dorad.cli", "build", operator.flow / "dataflow.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_release_has_the_clone_in_use_and_a_new_commit_replaces_only_its_node(operator, cloned):
    assert "node lidar: its `git` source was not fetched" in operator.refused()
    fetch(operator)
    first = operator.build()
    (program,) = (each for each in operator.paths(first["release"]) if each.endswith("scan.py"))
    assert "git/sources.json" in operator.paths(first["release"])
    assert not any("/.git/" in each for each in operator.paths(first["release"]))
    cloned("print(2)\n")
    fetch(operator)
    second = operator.build()
    assert program not in operator.paths(second["release"])
    assert sum(each.endswith("scan.py") for each in operator.paths(second["release"])) == 1
    nodes = [operator.store.find(each["release"]).manifest.nodes for each in (first, second)]
    changed = {node for node in nodes[0] if nodes[0][node].digest != nodes[1][node].digest}
    assert changed == {"lidar"}


def test_a_release_runs_its_clone_without_git_and_without_the_repository(
    operator, cloned, tmp_path
):
    fetch(operator)
    release = operator.build()
    tree = tmp_path / "robot"
    for file in operator.store.find(release["release"]).manifest.files:
        target = tree / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(operator.flow / file.path, target)
    shutil.rmtree(tmp_path / "lidar.git")
    flow = load(tree / "dataflow.yml")
    (lidar,) = (node for node in flow.nodes if node.id == "lidar")
    command = command_for(lidar, LaunchContext(flow, {"PATH": ""}), "")
    assert command.cwd.is_relative_to(tree / "git")
    assert command.argv[-1] == str(command.cwd / "scan.py")
