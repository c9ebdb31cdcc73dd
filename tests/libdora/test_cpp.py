"""Nodes in C++ over dora/node.hpp, and how builds find the library."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.dataflow import Flow
from tests.libdora.conftest import SANITIZE, Compile, add

HERE = Path(__file__).parent


@pytest.mark.parametrize("way", ["", "buffers"])
@pytest.mark.parametrize("standard", ["-std=c++17", "-std=c++20"])
def test_a_node_in_cpp_sends_and_receives(
    flow: Flow, compile_node: Compile, way: str, standard: str
) -> None:
    source = """
    import numpy as np
    import pyarrow as pa
    from dora import Node
    from probe import report
    node = Node()
    for size in (3, 10_000):
        sent = np.arange(size) / 2
        node.send_output("out", pa.array(sent), {"frame": "map"})
        while (event := node.next(20))["type"] != "INPUT":
            assert event["type"] != "ERROR", event
        assert (event["value"].to_numpy().view("float64") == 2 * sent).all()
        assert event["metadata"]["frame"] == "known"
        assert event["metadata"]["sizes"] == [size]
    report("done")
    """
    program = compile_node("double", HERE / "double.cc", language="c++", flags=(standard,))
    flow.node("asker", source, inputs={"back": "double/out"}, outputs=["out"])
    add(flow, "double", program, args=way, inputs={"in": "asker/out"}, outputs=["out"])
    outcome = flow.run().expect(0)
    assert flow.reports("asker") == ["done"]
    assert "refused: dora_send_bytes was called with NULL" in outcome.output


def test_the_header_compiles_without_exceptions(compile_node: Compile) -> None:
    source = "#include <dora/node.hpp>\nint main() { dora::Node node; return node ? 0 : 3; }\n"
    program = compile_node("quiet", source, language="c++", flags=("-fno-exceptions",))
    done = subprocess.run([program], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "start it with `dora run`" in done.stderr


PROGRAM = """
#include "node_api.h" /* as sources of dora do */
#include <dora/node_api.h>
int main(void) { return dora_node_version()[0] == '0' ? 0 : 1; }
"""


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="pkg-config is not installed")
@pytest.mark.skipif(bool(SANITIZE), reason="the program needs the sanitizer's library")
def test_pkg_config_finds_the_library(library: Path, tmp_path: Path) -> None:
    (tmp_path / "one.c").write_text(PROGRAM)
    command = "cc one.c $(pkg-config --cflags --libs dora-node) -o one && ./one"
    environ = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PKG_CONFIG_PATH": f"{library}/lib/pkgconfig",
        "LD_LIBRARY_PATH": f"{library}/lib",
    }
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environ, check=True)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.skipif(bool(SANITIZE), reason="the program needs the sanitizer's library")
def test_cmake_finds_the_library(library: Path, tmp_path: Path) -> None:
    (tmp_path / "one.c").write_text(PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(one C)\nfind_package(dora 0.2 REQUIRED)\n"
        "add_executable(one one.c)\ntarget_link_libraries(one dora::node)\n"
    )
    for command in (
        ["cmake", "-B", "build", f"-DCMAKE_PREFIX_PATH={library}"],
        ["cmake", "--build", "build"],
        ["build/one"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_a_node_is_tested_without_a_dataflow(compile_node: Compile) -> None:
    program = compile_node("mock", HERE / "mock.cc", language="c++")
    done = subprocess.run([program], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "all right"), done.stderr
