"""Manifests come from other machines: an invalid one is refused."""

from __future__ import annotations

import json
import os
import random
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.release import frames, machine, manifest
from dorad.release.errors import ReleaseError
from dorad.release.frames import Refusal
from dorad.release.machine import (
    Machine,
    check_machine,
    environment_for,
    fits,
    needed_files,
    needed_objects,
    this_machine,
)
from dorad.release.manifest import (
    MAX_MANIFEST,
    Environment,
    File,
    NodeContent,
    Package,
    Place,
    Target,
    encode,
    id_of,
    parse,
    path_problem,
)
from tests.release.samples import DIGEST, MACHINE, release

A_NODE = NodeContent("0" * 64, python=False)
NODES = {f"n{n}": NodeContent("0" * 64, python=False) for n in range(10_000)}
GOOD = parse(release(packages={"numpy": {"site/numpy/__init__.py": b"1"}}).content)


def changed(**fields):
    return encode(msgspec.structs.replace(GOOD, **fields))


def reason(content):
    with pytest.raises(ReleaseError) as caught:
        parse(content)
    assert caught.value.code == "manifest"
    return str(caught.value)


def test_the_bytes_of_a_manifest_are_always_the_same():
    content = encode(GOOD)
    assert encode(parse(content)) == content
    assert id_of(content) == id_of(encode(parse(content)))


def test_inputs_belong_to_the_second_format_and_to_each_node_of_it():
    with_inputs = NodeContent("0" * 64, python=False, inputs={"t": "dora/timer/hz/10"})
    content = changed(format=2, nodes={"a": with_inputs, "b": with_inputs})
    assert encode(parse(content)) == content
    assert "node 'b' has no inputs" in reason(
        changed(format=2, nodes={"a": with_inputs, "b": A_NODE})
    )
    assert "node 'a' has inputs, which" in reason(changed(format=1, nodes={"a": with_inputs}))
    for bad in ("", "x" * 501, "a\nb", "a\x1b[1m"):
        for inputs in ({bad: "a/b"}, {"t": bad}):
            node = NodeContent("0" * 64, python=False, inputs=inputs)
            assert reason(changed(format=2, nodes={"a": node}))


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/etc/passwd", "is absolute"),
        ("../x", "contains '..'"),
        ("a/../../x", "contains '..'"),
        ("a/./x", "contains '.'"),
        ("a//x", "contains an empty name"),
        ("a/", "contains an empty name"),
        ("a\nb", "contains a control character"),
        ("a\0b", "contains a control character"),
        ("a/" * 64 + "x", "deeper than 64"),
        ("x" * 256, "a name of more than 255 bytes"),
        ("é" * 600, "more than 1024 bytes"),
        ("/".join(["x" * 204] * 5) + "x", "more than 1024 bytes"),
        ("a\x7fb", "contains a control character"),
    ],
)
def test_a_path_that_could_leave_the_tree_is_refused(path, problem):
    assert problem in path_problem(path)
    assert reason(changed(files=[*GOOD.files, File(path, DIGEST, 1, False)]))
    package = Package("p", "1", [File(f"site/{path}", DIGEST, 1, False)])
    if not path.startswith("/"):
        assert reason(changed(packages=[package]))


@pytest.mark.parametrize("path", ["/".join(["x" * 204] * 5), "a/" * 63 + "x", "x" * 255, "a b"])
def test_a_path_of_the_largest_size_is_accepted(path):
    assert path_problem(path) == ""
    assert parse(changed(files=[*GOOD.files, File(path, DIGEST, 1, False)]))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"files": [*GOOD.files, GOOD.files[0]]}, "is there twice"),
        (
            {"files": [*GOOD.files, File("a.py/b", DIGEST, 1, False)]},
            "'a.py' is a file and a folder",
        ),
        ({"entry": "other.yml"}, "has no file 'other.yml'"),
        (
            {
                "files": [
                    File("dataflow.yml", DIGEST, 1, False),
                    *GOOD.files[1:],
                    File("z", DIGEST, 2, False),
                ]
            },
            "two sizes",
        ),
        ({"environments": [Environment(MACHINE.target, [1])]}, "a package that is not there"),
        ({"environments": [Environment(MACHINE.target, [0, 0])]}, "has a package twice"),
        ({"environments": [Environment(Target("aarch64", "3.11"), [0])]}, "not those of its"),
        ({"targets": [MACHINE.target, MACHINE.target]}, "a target is there twice"),
        (
            {"targets": [Target("x86_64")], "environments": [Environment(Target("x86_64"), [0])]},
            "no version of Python",
        ),
        ({"packages": [Package("p", "1", [File("bin/python3", DIGEST, 1, True)])]}, "hides bin"),
        ({"packages": [Package("p", "1", [File("pyvenv.cfg", DIGEST, 1, True)])]}, "in none of"),
        ({"nodes": NODES | {"one more": NodeContent("0" * 64, python=False)}}, "than 10000 nodes"),
        (
            {"packages": [Package("p", "1", [File("site/zz-dorad.pth", DIGEST, 1, True)])]},
            "hides lib/python3.11/site-packages/zz-dorad.pth",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(fields, expected):
    assert expected in reason(changed(**fields))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data/pyvenv.cfg", "hides pyvenv.cfg"),
        ("bin/pyvenv.cfg", "hides bin/pyvenv.cfg"),
        ("data/bin/python", "hides bin/python"),
        ("data/bin/python3.11-config", "hides bin/python3.11-config"),
        ("data/lib/python3.11/site-packages/zz-dorad.pth", "hides lib/python3.11/site-packages/zz"),
        ("data/lib/python3.11/site-packages/numpy/__init__.py", "is there twice"),
        ("data/bin", "'bin' is a file and a folder"),
        ("data/pyvenv.cfg/x", "'pyvenv.cfg' is a file and a folder"),
    ],
)
def test_no_file_of_a_wheel_takes_the_place_of_one_that_the_robot_makes(path, expected):
    """It would be written to as the robot makes it, and so would the object that it links to."""
    own = File("site/numpy/__init__.py", DIGEST, 1, False)
    package = Package("numpy", "1", [own, File(path, DIGEST, 1, False)])
    assert expected in reason(changed(packages=[package]))


def test_a_manifest_takes_no_longer_with_very_many_environments():
    targets = [Target("x86_64", f"3.{one}", f"2.{two}") for one in range(100) for two in range(100)]
    package = Package("p", "1", [File(f"site/{n}", DIGEST, 1, False) for n in range(20_000)])
    made = [Environment(target, [0]) for target in targets]
    many = changed(targets=targets, packages=[package], environments=made)
    assert len(many) <= MAX_MANIFEST
    assert "more than 16 targets" in reason(many)
    few = changed(targets=targets[:16], packages=[package], environments=made[:16])
    assert "more than 150000 files" in reason(few)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "../x"),
        ("name", ""),
        ("name", "flow\n"),
        ("min_dorad", "0.1.0\n"),
        ("targets", [{"arch": "x86_64\n"}]),
        ("files", [["a", DIGEST + "\n", 1, False]]),
        ("sequence", 0),
        ("sequence", 1 << 60),
        ("sequence", True),
        ("created", -1),
        ("min_dorad", "x"),
        ("targets", [{"arch": "../../x"}]),
        ("files", [["a", "zz", 1, False]]),
        ("files", [["a", DIGEST, -1, False]]),
        ("files", [["a", DIGEST, 1]]),
        ("files", {}),
        ("nodes", {"a": {"digest": "x", "python": True}}),
        ("more", 1),
    ],
)
def test_a_field_with_a_wrong_value_is_refused(name, value):
    plain = json.loads(encode(GOOD))
    plain[name] = value
    assert reason(json.dumps(plain, separators=(",", ":")).encode())


def test_another_format_is_refused_with_the_next_step():
    assert "upgrade dorad" in reason(encode(GOOD).replace(b'"format":1', b'"format":3'))


def test_the_same_content_in_other_bytes_is_refused():
    assert "in the order" in reason(b" " + encode(GOOD))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"format":1,"x":' + b"[" * 100_000,
        b"\xff\xfe",
        b'{"format":1' + b" " * MAX_MANIFEST + b"}",
    ],
)
def test_bytes_that_are_no_manifest_are_refused(content):
    assert reason(content)


def test_a_manifest_with_as_many_files_as_fit_is_read():
    files = [File(f"d/{n}", DIGEST, 1, False) for n in range(30_000)]
    content = changed(files=[*GOOD.files, *files])
    assert len(content) <= MAX_MANIFEST
    assert len(parse(content).files) == len(GOOD.files) + 30_000


@given(st.binary(max_size=300), st.integers(0, 2000), st.integers(0, 300))
def test_no_bytes_raise_anything_but_a_refusal(piece, start, removed):
    content = encode(GOOD)
    mixed = content[:start] + piece + content[start + removed :]
    try:
        found = parse(mixed)
    except ReleaseError:
        return
    assert encode(found) == mixed


@given(st.text(max_size=60))
def test_every_path_that_is_accepted_stays_below_its_folder(path):
    if not path or path_problem(path):
        return
    assert os.path.normpath(f"/top/{path}") == f"/top/{path}"


def test_a_manifest_may_have_many_nodes():
    assert len(parse(changed(nodes=NODES)).nodes) == 10_000


# -- the machine


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        (Target("x86_64"), True),
        (Target("x86_64", "3.11"), True),
        (Target("x86_64", "3.11", "2.36"), True),
        (Target("x86_64", "", "2.9"), True),
        (Target("x86_64", "", "2.37"), False),
        (Target("x86_64", "3.12"), False),
        (Target("aarch64", "3.11", "2.36"), False),
    ],
)
def test_a_target_fits_its_architecture_its_python_and_newer_libraries(target, runs):
    assert fits(target, Machine("x86_64", "3.11", "2.36")) == runs


def test_what_needs_a_version_of_glibc_runs_on_no_other_library():
    other = Machine("x86_64", "3.11", "")
    assert fits(Target("x86_64"), other)
    assert not fits(Target("x86_64", "", "2.9"), other)


@pytest.mark.parametrize(
    ("fields", "words", "hint"),
    [
        ({"min_dorad": "0.2"}, "it needs dorad 0.2 or newer, this is 0.1.9", "upgrade the package"),
        ({"min_dorad": "0.1.10"}, "it needs dorad 0.1.10 or newer", "upgrade the package"),
        ({"targets": [Target("aarch64"), Target("riscv")]}, "it is for aarch64", "--target"),
    ],
)
def test_a_release_for_other_machines_is_refused_with_what_does_not_fit(fields, words, hint):
    manifest = msgspec.structs.replace(GOOD, **fields)
    with pytest.raises(ReleaseError, match=words) as caught:
        check_machine(manifest, Machine("x86_64", "3.11", "", "0.1.9"))
    assert caught.value.code == "machine"
    assert hint in caught.value.hint


def test_a_release_without_targets_or_with_one_that_fits_is_for_this_machine():
    machine = Machine("x86_64", "3.11", "2.36", "0.1.9rc1")
    for targets in ([], [Target("aarch64"), Target("x86_64")]):
        for version in ("0.1.9", "0.1", "0.0.99"):
            check_machine(
                msgspec.structs.replace(GOOD, targets=targets, min_dorad=version), machine
            )


def test_a_machine_needs_the_files_of_its_newest_environment_each_object_once():
    one, two = (File(f"site/{n}.py", n * 64, 1, False) for n in "12")
    packages = [Package("one", "1", [one]), Package("two", "1", [two, one])]
    targets = [Target("x86_64", "3.11", each) for each in ("2.9", "2.31", "2.40")]
    environments = [Environment(target, [n % 2]) for n, target in enumerate(targets)]
    fields = {"packages": packages, "targets": targets, "environments": environments}
    manifest = msgspec.structs.replace(GOOD, **fields)
    machine = Machine("x86_64", "3.11", "2.36")
    assert environment_for(manifest, machine) == environments[1]
    assert list(needed_files(manifest, machine)) == [*GOOD.files, two, one]
    objects = needed_objects(manifest, machine)
    assert objects == sorted({each.object for each in (*GOOD.files, one, two)})
    other = Machine("aarch64", "3.11", "2.36")
    assert environment_for(manifest, other) is None
    assert list(needed_files(manifest, other)) == GOOD.files


def test_the_refusal_of_a_robot_is_an_error_of_bounded_length():
    short = Refusal("manifest", "no", None).error()
    assert (short.code, str(short), short.hint) == ("manifest", "no", None)
    long = Refusal("disk", "x" * 2000, "y" * 2000).error()
    assert (long.code, str(long).count("x"), len(long.hint)) == ("disk", 1000, 500)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Target("x86_64"), "x86_64"),
        (Target("x86_64", "3.13"), "x86_64, python 3.13"),
        (Target("x86_64", "", "2.36"), "x86_64, glibc 2.36"),
        (Target("x86_64", "3.13", "2.36"), "x86_64, python 3.13, glibc 2.36"),
    ],
)
def test_a_target_says_only_what_it_needs(target, text):
    assert str(target) == text


ONE, TWO = Target("x86_64", "3.11"), Target("aarch64", "3.11")
BOTH = {
    "targets": [ONE, TWO],
    "environments": [Environment(ONE, [0, 1]), Environment(TWO, [1])],
    "packages": [
        Package("a", "1", [File("site/a.py", DIGEST, 1, executable=False)]),
        Package("b", "1", [File(f"site/b{n}.py", DIGEST, 1, executable=False) for n in (1, 2)]),
    ],
    "nodes": {"a": A_NODE, "b": A_NODE},
    "format": 1,
}


@pytest.mark.parametrize(
    ("name", "most", "text"),
    [
        ("MAX_TARGETS", 2, "it has more than 1 targets"),
        ("MAX_PLACED", 5, "its environments have more than 4 files"),
        ("MAX_NODES", 2, "it has more than 1 nodes"),
    ],
)
def test_what_a_manifest_may_have_of_each_is_bounded(monkeypatch, name, most, text):
    content = changed(**BOTH)
    monkeypatch.setattr(manifest, name, most)
    assert encode(parse(content)) == content
    monkeypatch.setattr(manifest, name, most - 1)
    assert text in reason(content)


def test_the_bytes_of_a_manifest_are_bounded(monkeypatch):
    content = changed(**BOTH)
    monkeypatch.setattr(manifest, "MAX_MANIFEST", len(content))
    assert encode(parse(content)) == content
    monkeypatch.setattr(manifest, "MAX_MANIFEST", len(content) - 1)
    assert f"it has {len(content)} bytes, more than {len(content) - 1}" in reason(content)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"environments": [Environment(ONE, [0]), Environment(TWO, [2])]},
         "names a package that is not there"),
        ({"environments": [Environment(ONE, [0]), Environment(TWO, [1, 1])]},
         "has a package twice"),
        ({"environments": [Environment(ONE, [0])]}, "are not those of its targets"),
        ({"targets": [ONE, Target("aarch64")],
          "environments": [Environment(ONE, [0]), Environment(Target("aarch64"), [0])]},
         "a target with an environment has no version of Python"),
        ({"nodes": {"a": NodeContent(DIGEST, python=False, place=Place("r1"))}},
         "node 'a' has a place, which format 1 has not"),
        ({"files": [*GOOD.files, *(File(path, DIGEST, 1, executable=False)
                                   for path in ("d", "d/e/f"))]},
         "files: 'd' is a file and a folder"),
        ({"files": [*GOOD.files, *(File(path, DIGEST, 1, executable=False)
                                   for path in ("d/e", "d/e/f"))]},
         "files: 'd/e' is a file and a folder"),
        ({"files": [*GOOD.files, File("d", DIGEST, 1, executable=False),
                    File("e", DIGEST, 2, executable=True)]},
         "has two sizes"),
    ],
)  # fmt: skip
def test_parts_of_a_manifest_that_do_not_fit_are_named(fields, text):
    assert text in reason(changed(**BOTH | fields))


def test_this_machine_has_a_version_of_glibc_if_that_is_its_library(monkeypatch):
    for found, glibc in ((("glibc", "2.36"), "2.36"), (("libc", "1.2"), ""), (("", ""), "")):
        monkeypatch.setattr(machine.platform, "libc_ver", lambda found=found: found)
        assert this_machine().glibc == glibc
    python = this_machine().python
    assert this_machine().target == Target(os.uname().machine, python)
    assert python == f"{sys.version_info.major}.{sys.version_info.minor}"


# -- frames


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        (frames.MANIFEST, frames.MAX_MANIFEST),
        (frames.SIGNATURE, frames.MAX_SIGNATURE),
        (frames.PIECE, 2 * frames.PIECE_SIZE),
        (frames.HELLO, frames.MAX_FRAME),
        (250, frames.MAX_FRAME),
    ],
)
def test_a_frame_is_as_long_as_its_kind_may_be(kind, limit):
    assert frames.check_header(frames.HEADER.pack(kind, limit)) == (kind, limit)
    with pytest.raises(ReleaseError, match=f"a message of {limit + 1} bytes is too long") as caught:
        frames.check_header(frames.HEADER.pack(kind, limit + 1))
    assert caught.value.code == "protocol"


def test_a_piece_is_whole_and_no_longer_than_it_may_be():
    packed = frames.compress(b"x" * 1000)
    assert frames.decompress(packed, 1000) == b"x" * 1000
    for wrong, limit in ((packed, 999), (packed[:-1], 1000), (packed + b"y", 1000), (b"no", 1000)):
        with pytest.raises(ReleaseError) as caught:
            frames.decompress(wrong, limit)
        assert caught.value.code == "protocol"


@pytest.mark.parametrize("size", [8, 700, 100_000])
def test_a_patch_is_small_and_makes_the_content_of_what_it_starts_from(size):
    base = random.Random(1).randbytes(size)
    content = base + b"new"
    patch = frames.make_patch(base, content)
    assert len(patch) < 100
    assert frames.decompress(patch, len(content), base) == content


@pytest.mark.parametrize(("key", "zero"), [("cpu", 0.0), ("memory", 0), ("gpu", 0)])
def test_what_a_node_needs_has_bounds(key, zero):
    def needing(value):
        place = Place(**{key: value})
        node = NodeContent("0" * 64, python=False, inputs={}, place=place)
        return changed(format=2, nodes={"a": node})

    assert getattr(parse(needing(zero)).nodes["a"].place, key) == zero
    for value in (-1, 10**18):
        with pytest.raises(
            ReleaseError, match=rf"the manifest is not valid: .*nodes.*place\.{key}"
        ):
            parse(needing(value))
