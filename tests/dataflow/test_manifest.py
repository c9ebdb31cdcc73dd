"""The manifest of a node: accepted forms, and error messages."""

from pathlib import Path

import pytest

from dorad.dataflow.errors import DataflowError
from dorad.dataflow.manifest import check_manifest

HEAD = "apiVersion: 1\nname: lidar\nnamespace: acme\nruntime: python\nentrypoint: lidar\n"
FULL = (
    HEAD
    + """\
description: a lidar
categories: [sensor, ml-inference]
keywords: [points]
build: pip install .
platforms: [linux-x86_64]
dora: ">=0.4, <2"
inputs:
  tick: {}
  image: {type: std/media/v1/Image, required: false, description: what it sees}
outputs:
  cloud: {type: acme/lidar/v1/Cloud}
env:
  PORT: {type: string, default: /dev/ttyUSB0}
  RATE: {type: float, default: 5}
  FAST: {default: true}
types:
  acme/lidar/v1/Cloud: {arrow: Struct, fields: [{name: x, type: Float32}]}
requirements: {hardware: [gpu], system: {cuda: ">=12"}}
example: |
  - id: lidar
"""
)


def test_a_whole_manifest(tmp_path: Path) -> None:
    file = tmp_path / "dora-node.yml"
    file.write_text(FULL)
    assert check_manifest(file) == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "dora-node.yml:1:1: the file is empty (a manifest starts with `apiVersion: 1`)"),
        ("[]", "must be a mapping with `apiVersion: 1`, not a list"),
        (HEAD.replace("apiVersion: 1\n", ""), "needs `apiVersion`"),
        (HEAD.replace("1", "2"), "dora-node.yml:1:13: apiVersion: must be a whole number"),
        (HEAD.replace("1", "'1'"), "apiVersion: must be a whole number"),
        (HEAD.replace("namespace: acme\n", ""), "needs `namespace`"),
        (HEAD.replace("runtime: python\n", ""), "needs `runtime` (one of python, rust, c, cpp)"),
        (HEAD.replace("python", "go"), "runtime: must be one of python, rust, c, cpp, not `go`"),
        (HEAD.replace("entrypoint: lidar\n", ""), "needs `entrypoint`"),
        (HEAD.replace("t: lidar", "t: /bin/x"), "entrypoint: `/bin/x` is not within the node's"),
        (HEAD.replace("t: lidar", "t: a/../x"), "entrypoint: `a/../x` is not within the node's"),
        (HEAD.replace("e: lidar", "e: A b"), "name: `A b` is not a valid name"),
        (HEAD.replace("acme", "ac/me"), "namespace: `ac/me` is not a valid namespace"),
        (
            HEAD + "input: {}",
            "dora-node.yml:6:1: input: unknown key `input` (did you mean",
        ),
        (HEAD + "inputs: [a]", "inputs: must be a mapping, not a list"),
        (HEAD + "inputs: {a: ~}", "inputs.a: must be a mapping, not nothing (write `{}`)"),
        (HEAD + "inputs: {a/: {}}", "inputs.a/: the id `a/` has an empty part"),
        (HEAD + "inputs: {a: {requird: true}}", "did you mean `required`?"),
        (HEAD + "inputs: {a: {type: std/core/v1/Bol}}", "unknown type `std/core/v1/Bol` (did you"),
        (HEAD + "outputs: {a: {required: true}}", "outputs.a.required: only inputs can be requir"),
        (HEAD + "env: {A B: {}}", "env.A B: is not a valid variable name"),
        (HEAD + "env: {A: 1}", "env.A: must be a mapping with `type` and `default`, not 1"),
        (HEAD + "env: {A: {type: integer}}", "type: must be one of string, int, float, bool"),
        (HEAD + "env: {A: {type: int, default: x}}", "env.A.default: is not of the type `int`"),
        (HEAD + "env: {A: {type: int, default: true}}", "default: is not of the type `int`"),
        (HEAD + "env: {A: {default: [1]}}", "default: must be a plain value, not a list"),
        (HEAD + "platforms: [linux]", "platforms[0]: `linux` is not a platform"),
        (HEAD + "categories: [senser]", "categories[0]: `senser` is not one of sensor, actuator"),
        (HEAD + "dora: new", "dora: `new` is not a range of versions"),
        (HEAD + "example: '[a'", "example: is not valid YAML"),
        (HEAD + "types: {other/v1/A: {arrow: Int8}}", "a node's types must start with its namespa"),
        (HEAD + "types: {acme/v1/A: {arrow: No}}", "there is no type `No`"),
        (HEAD + "requirements: {gpu: 1}", "requirements.gpu: unknown key `gpu`"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "dora-node.yml"
    file.write_text(text)
    with pytest.raises(DataflowError) as caught:
        check_manifest(file)
    assert message in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataflowError, match=r"no such file .give the path of a node's manifest"):
        check_manifest(tmp_path / "none.yml")
