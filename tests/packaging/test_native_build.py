"""The C part of the data plane is compiled where possible; elsewhere all works without it."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGET = "dorad/shm/native/_native.abi3.so"

pytestmark = pytest.mark.long

compiles = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang")))
    or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="there is no C compiler, or no Python.h (sudo apt-get install gcc python3-dev)",
)
builds_wheels = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed (make test)"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The sources, without anything compiled."""
    tree = tmp_path / "tree"
    tree.mkdir()
    nothing = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("dorad", "dorafleet", "packaging"):
        shutil.copytree(ROOT / name, tree / name, ignore=nothing)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    return tree


def call(
    tree: Path, *arguments: str, wish: str | None = None, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DORAD_NATIVE", "CC")
    }
    if wish is not None:
        environment["DORAD_NATIVE"] = wish
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def compile_extension(tree: Path, **options: str | None) -> subprocess.CompletedProcess[str]:
    return call(tree, "packaging/native.py", **options)


def build_wheel(tree: Path, **options: str | None) -> subprocess.CompletedProcess[str]:
    return call(tree, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist", **options)


def wheels(tree: Path) -> list[str]:
    return [path.name for path in (tree / "dist").glob("*.whl")]


def tells_what_it_needs() -> bool:
    return platform.libc_ver()[0] == "glibc" and shutil.which("readelf") is not None


HEADERS = (
    *("node_api.h", "node.hpp", "testing.h", "testing.hpp"),
    *("dora-node-api.h", "cxx_events.h", "cxx_metadata.h", "cxx_types.h"),
)


def build_node(folder: Path) -> None:
    """Compile and start a node with what `dora cflags` of the installed wheel prints."""
    (folder / "node.c").write_text(
        "#include <dora/node_api.h>\nint main(void) { return dora_node_version()[0] != '0'; }\n"
    )
    run = f"import sys; sys.path.insert(0, {str(folder / 'installed')!r}); "
    run += "from dorad.cli.main import main; sys.argv = ['dora', 'cflags', *sys.argv[1:]]; main()"
    printed = {
        option: call(folder, "-c", run, *([option] if option else []))
        for option in ("", "--libs", "--cmake-dir", "--pkgconfig-dir")
    }
    for done in printed.values():
        assert done.returncode == 0, done.stderr
    flags = printed["--libs"].stdout.strip()
    subprocess.run(["sh", "-c", f"cc node.c -o node {flags} && ./node"], cwd=folder, check=True)
    assert flags.startswith(printed[""].stdout.strip())
    assert Path(printed["--cmake-dir"].stdout.strip(), "dora-config.cmake").exists()
    assert Path(printed["--pkgconfig-dir"].stdout.strip(), "dora-node.pc").exists()


@compiles
@builds_wheels
@pytest.mark.timeout(300)
def test_a_wheel_with_the_extension_fits_every_python_from_3_11(tree: Path, tmp_path: Path) -> None:
    done = build_wheel(tree, wish="1")
    assert done.returncode == 0, done.stderr
    (name,) = wheels(tree)
    expected = r"manylinux_2_(\d+)" if tells_what_it_needs() else "(linux)"
    tag = re.fullmatch(rf"dorad-[^-]+-cp311-abi3-{expected}_\w+\.whl", name)
    assert tag, name
    with zipfile.ZipFile(tree / "dist" / name) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(tmp_path / "installed")
    assert TARGET in names
    headers = {name for name in names if name.endswith((".c", ".h", ".hpp"))}
    include = "dorad/libdora/include/dora"
    assert headers == {f"{include}/{name}" for name in HEADERS}
    build_node(tmp_path)
    assert not (tree / TARGET).exists()
    show = "from dorad.shm import native; print(native.describe(), native.__file__)"
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r}); {show}"
    done = call(tmp_path, "-c", code, wish="1")
    assert done.stdout == f"native {tmp_path}/installed/dorad/shm/native/__init__.py\n"


@builds_wheels
def test_without_a_compiler_the_wheel_is_pure_with_a_warning(tree: Path) -> None:
    done = build_wheel(tree, path="/nowhere")
    assert done.returncode == 0, done.stderr
    (name,) = wheels(tree)
    assert name.endswith("-py3-none-any.whl")
    assert "warning: there is no C compiler" in done.stderr
    with zipfile.ZipFile(tree / "dist" / name) as wheel:
        wheel.extractall(tree / "installed")
    code = "import sys; sys.path.insert(0, '.'); sys.argv[1:] = ['cflags']; "
    done = call(tree / "installed", "-c", code + "from dorad.cli.main import main; main()")
    if not list(Path("/usr/lib").glob("*/cmake/dora/dora-config.cmake")):
        assert done.returncode == 1
        assert "its wheel was built without a C compiler" in done.stderr


@builds_wheels
def test_an_extension_that_lies_in_the_tree_is_not_taken_into_a_pure_wheel(tree: Path) -> None:
    (tree / TARGET).write_bytes(b"of another machine")
    assert build_wheel(tree, wish="0").returncode == 0
    (name,) = wheels(tree)
    assert name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(tree / "dist" / name) as wheel:
        assert TARGET not in wheel.namelist()


@builds_wheels
def test_without_a_compiler_1_builds_no_wheel(tree: Path) -> None:
    done = build_wheel(tree, wish="1", path="/nowhere")
    assert done.returncode == 1
    assert "error: DORAD_NATIVE=1, but there is no C compiler" in done.stderr
    assert not wheels(tree)


@compiles
@builds_wheels
@pytest.mark.timeout(300)
def test_where_the_sources_do_not_compile_the_wheel_is_pure_unless_it_must_not_be(
    tree: Path,
) -> None:
    (tree / "dorad/shm/native/wrong.c").write_text("int number = unknown;\n")
    done = build_wheel(tree)
    assert done.returncode == 0, done.stderr
    (name,) = wheels(tree)
    assert name.endswith("-py3-none-any.whl")
    assert "unknown" in done.stderr
    assert build_wheel(tree, wish="1").returncode == 1


@compiles
@pytest.mark.timeout(300)
def test_it_is_compiled_into_the_source_tree_once_until_a_source_changes(tree: Path) -> None:
    assert compile_extension(tree).returncode == 0
    made = (tree / TARGET).stat()
    assert compile_extension(tree).returncode == 0
    assert (tree / TARGET).stat().st_ino == made.st_ino
    with (tree / "dorad/shm/native/module.c").open("a") as file:
        file.write("/* newer */\n")
    assert compile_extension(tree).returncode == 0
    assert (tree / TARGET).stat().st_ino != made.st_ino
    left = {path.suffix for path in (tree / "dorad/shm/native").iterdir()}
    assert left <= {".py", ".pyi", ".c", ".h", ".so", ".stamp", ""}
    assert not list((tree / "dorad/shm/native").glob(".build-*"))


@compiles
def test_one_that_can_no_longer_be_compiled_is_removed(tree: Path) -> None:
    (tree / TARGET).write_bytes(b"of older sources")
    (tree / "dorad/shm/native/wrong.c").write_text("int number = unknown;\n")
    assert compile_extension(tree).returncode == 1
    assert not (tree / TARGET).exists()


def test_without_the_headers_of_python_the_error_names_the_package(tree: Path) -> None:
    pretended = (
        "import runpy, sysconfig; sysconfig.get_path = lambda name: '/nowhere'; "
        "runpy.run_path('packaging/native.py', run_name='__main__')"
    )
    done = call(tree, "-c", pretended)
    assert done.returncode == 0
    if any(map(shutil.which, ("cc", "gcc", "clang"))):
        assert "/nowhere/Python.h is missing: sudo apt-get install python3-dev" in done.stderr
    done = call(tree, "-c", pretended, wish="1")
    assert done.returncode == 1


def test_a_compiler_that_is_named_and_missing_is_named(tree: Path) -> None:
    environment = "import os; os.environ['CC'] = 'no-such-cc -m64'; "
    run = "import runpy; runpy.run_path('packaging/native.py', run_name='__main__')"
    done = call(tree, "-c", environment + run)
    assert done.returncode == 0
    assert "warning: $CC is not installed: no-such-cc" in done.stderr
