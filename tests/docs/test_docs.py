"""The documentation's examples run, and all names and links in it exist."""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest
import yaml

from dorad.cli.commands import COMMANDS as TABLE
from dorad.cli.root import cli
from dorad.dataflow import kinds
from dorad.dataflow.builderkeys import NodeKeys
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.load import load
from dorad.dataflow.modules.expansion import check_module
from dorafleet.cli.main import cli as fleet_cli
from hwtests.suites.lists import LISTS
from tests.harness.dataflow import clean_environment
from tests.harness.ports import free_port
from tests.harness.waiting import wait_until

from .markdown import PAGES, ROOT, Command, Section, anchors, links, prose, sections

BIN = Path(sys.executable).parent
DEADLINE_S = 100
SECTIONS = [section for page in PAGES for section in sections(page)]
EXAMPLES = ROOT / "docs" / "examples"
PORT = "8731"
"""The port of all examples that need one; each test gets another one."""
TUTORIAL = sorted((ROOT / "docs" / "tutorial").glob("[1-9]-*.md"))
AT_THE_DESK = TUTORIAL[:5]
"""Followed in one folder, from the first page to the last, with a daemon.

The others need robots: hwtests/robots/test_tutorial.py follows them.
"""
DAEMON_PAGES = [
    page
    for page in PAGES
    if page not in TUTORIAL and "\n$ dora up\n" in page.read_text(encoding="utf-8")
]
"""Each is followed from top to bottom, with its own daemon."""
RUN = [s for s in SECTIONS if (s.files or s.sessions) and s.page not in [*DAEMON_PAGES, *TUTORIAL]]
GUIDE = [page for page in PAGES if page.parent.name == "guide" or page.parent == ROOT / "docs"]


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def environment(**extra: str) -> dict[str, str]:
    # A manually started node must not attach to a dataflow of another test.
    return clean_environment(BIN, {"DORA_DAEMON_LOCAL_LISTEN_PORT": str(free_port()), **extra})


def is_example(page: Path) -> bool:
    """Return whether the page is the README of an example, whose files are beside it."""
    return page.parent.parent == EXAMPLES


def needs_compiler(page: Path) -> bool:
    return page.name == "native-nodes.md" or (is_example(page) and any(page.parent.glob("*.mk")))


def copy_example(source: Path, folder: Path) -> None:
    """Copy the files of an example, with a port that no other test uses."""
    skip = shutil.ignore_patterns("out", "build", "__pycache__")
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=skip)
    port = str(free_port())
    for file in (*folder.glob("*.py"), *folder.glob("*.yml")):
        text = file.read_text(encoding="utf-8")
        if PORT in text:
            file.write_text(text.replace(PORT, port), encoding="utf-8")


def native_environment() -> dict[str, str]:
    """Build libdora_node; return how programs find it, as if it were installed."""
    for program in ("cc", "c++", "make", "pkg-config"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (sudo apt-get install g++ make pkg-config)")
    subprocess.run([sys.executable, "packaging/nodelib.py"], cwd=ROOT, check=True)
    lib = ROOT / "build" / "native-node" / "lib"
    return {"PKG_CONFIG_PATH": str(lib / "pkgconfig"), "LD_LIBRARY_PATH": str(lib)}


def write(section: Section, folder: Path) -> None:
    for name, text in section.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def execute(command: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run one command of a session; one that takes too long fails the test."""
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"`{command}` did not end within {DEADLINE_S} s")
    return process.returncode, text


def check(command: Command, folder: Path, env: dict[str, str]) -> None:
    """Run a command and check what it prints."""
    code, text = execute(command.line, folder, env)
    if command.line.startswith(("dora start ", "dora restart ")):
        wait_until_started(folder, env)
    command.check(code, text)


def wait_until_started(folder: Path, env: dict[str, str]) -> None:
    """Wait until all dataflows have started, as a human reader would."""
    wait_until(lambda: execute("dora list", folder, env)[1], lambda text: "Starting" not in text)


@pytest.mark.examples
@pytest.mark.parametrize("section", RUN, ids=str)
def test_the_examples_of_a_section_work(section: Section, tmp_path: Path) -> None:
    extra = native_environment() if needs_compiler(section.page) else {}
    follow(section, tmp_path, environment(**extra))


def follow(section: Section, folder: Path, env: dict[str, str]) -> None:
    """Write the files of a section, or copy those of an example, and run its sessions."""
    if is_example(section.page):
        copy_example(section.page.parent, folder)
    write(section, folder)
    for block in section.blocks:
        if block.name and block.language == "yaml" and not block.broken and "nodes:" in block.text:
            how = "expand --module" if block.text.startswith("module:") else "validate"
            code, text = execute(f"dora {how} {block.name}", folder, env)
            assert code == 0, text
            assert "warning:" not in text, text
    for command in section.sessions:
        check(command, folder, env)


@pytest.mark.examples
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "pages",
    [*([page] for page in DAEMON_PAGES), AT_THE_DESK],
    ids=[*names(DAEMON_PAGES), "tutorial"],
)
def test_pages_about_the_daemon_work_from_top_to_bottom(pages: list[Path], tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="dora-test-") as runtime:  # a socket's path is short
        state = str(tmp_path / "state")
        env = environment(XDG_RUNTIME_DIR=runtime, XDG_STATE_HOME=state)
        folder = tmp_path / "page"
        folder.mkdir()
        try:
            for section in (section for page in pages for section in sections(page)):
                follow(section, folder, env)
        finally:
            if Path(runtime, "dora", "control.sock").exists():
                execute("dora down --force", folder, env)


@pytest.mark.examples
def test_the_first_dataflow_of_the_readme_prints_temperatures(tmp_path: Path) -> None:
    [section] = [s for s in SECTIONS if s.page.parent == ROOT and s.title == "A first dataflow"]
    write(section, tmp_path)
    command = "dora run dataflow.yml --stop-after 8s"
    code, text = execute(command, tmp_path, environment())
    assert code == 0, text
    lines = re.findall(r"stdout display: lab 2\d\.\d+ °C$", text, re.MULTILINE)
    assert 1 <= len(lines) <= 17, text


@pytest.mark.parametrize("section", [s for s in SECTIONS if s.blocks], ids=str)
def test_every_block_of_code_is_whole(section: Section, tmp_path: Path) -> None:
    write(section, tmp_path)
    for block in section.blocks:
        where = f"{section.page.relative_to(ROOT)}:{block.line}"
        if block.language == "python":
            compile(block.text, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        elif block.language == "yaml" and not block.broken:
            content = yaml.safe_load(block.text)
            if isinstance(content, dict) and "nodes" in content:
                file = tmp_path / (block.name or "dataflow.yml")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
                try:
                    if "module" in content:
                        check_module(file, environ={})
                    else:
                        load(file, environ={"HOME": "/home/robot"})
                except DataflowError as error:
                    pytest.fail(f"{where}: {error}")


def options(command: click.Command) -> set[str]:
    """Return the options that a command of `dora` shows in its help."""
    shown = [
        param
        for param in command.get_params(click.Context(command, **command.context_settings))
        if isinstance(param, click.Option) and not param.hidden
    ]
    return {name for option in shown for name in (*option.opts, *option.secondary_opts)}


def options_of_the_daemon() -> set[str]:
    """Return the options in the help of `dorad`."""
    argv = [sys.executable, "-m", "dorad.daemon.main", "--help"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    listed = re.findall(r"^  (-.*?)(?:  |$)", text, re.MULTILINE)
    return {option for line in listed for option in re.findall(r"-{1,2}[a-zA-Z][\w-]*", line)}


def all_commands(group: click.Group = cli, prefix: str = "") -> dict[str, click.Command]:
    """Return every command that help lists, those of groups as `group name`."""
    context = click.Context(group)
    found: dict[str, click.Command] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= all_commands(command, f"{name} ")
        else:
            found[prefix + name] = command
    return found


COMMANDS = all_commands()


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    return {name: options(command) for name, command in COMMANDS.items()}


def test_the_help_of_every_command_has_an_example() -> None:
    every = {f"dora {name}": command for name, command in COMMANDS.items()}
    every |= {f"dorafleet {name}": command for name, command in all_commands(fleet_cli).items()}
    without = [
        name
        for name, command in every.items()
        if not re.search(rf"^ +.*{name.split()[0]} ", command.epilog or "", re.MULTILINE)
    ]
    assert without == []


def test_every_command_that_talks_to_a_server_has_the_options_that_choose_it(
    known: dict[str, set[str]],
) -> None:
    without = [
        name
        for name, options in known.items()
        if (TABLE[name.split()[0]].server or name in ("record start", "record ring"))
        and not {"--coordinator-port", "--coordinator-addr"} <= options
    ]
    assert without == []


def wrong_options(program: str, commands: dict[str, click.Command]) -> list[str]:
    """Return the options that pages give to commands of a program that do not have them."""
    known = {name: options(command) for name, command in commands.items()}
    # The longest first: `release trust` before `release`.
    every = "|".join(sorted(commands, key=len, reverse=True))
    mention = re.compile(rf"\b{program} ({every})\b(?!-)([^`\n|]*)")
    wrong = []
    for page in PAGES:
        for command, rest in mention.findall(page.read_text(encoding="utf-8")):
            words = rest.split()
            words = words[: words.index("#")] if "#" in words else words
            for word in words:
                option = word.rstrip(".,;:)").partition("=")[0]
                if re.fullmatch(r"--[a-z][a-z-]*", option) and option not in known[command]:
                    wrong.append(f"{page.name}: `{program} {command}` has no {option}")
    return wrong


def test_every_option_that_is_mentioned_with_its_command_exists() -> None:
    assert wrong_options("dora", COMMANDS) == []
    assert wrong_options("dorafleet", all_commands(fleet_cli)) == []


def test_every_option_that_the_guide_mentions_exists(known: dict[str, set[str]]) -> None:
    everything = set().union(*known.values(), options(cli), options_of_the_daemon())
    everything |= set().union(*map(options, all_commands(fleet_cli).values()))
    everything |= {"--hash", "--no-deps"}
    wrong = [
        f"{page.name}: no command has {option}"
        for page in GUIDE
        if page.name != "differences.md"
        for option in re.findall(r"`(--[a-z][a-z-]*)", prose(page))
        if option not in everything
    ]
    assert wrong == []


def test_every_target_of_make_that_is_mentioned_exists() -> None:
    known = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    wrong = [
        f"{page.name}: make {target}"
        for page in PAGES
        for target in re.findall(r"[`$] ?make ([a-z][a-z0-9-]*)", page.read_text(encoding="utf-8"))
        if target not in known
    ]
    assert wrong == []


def test_what_make_test_leaves_out_is_in_one_of_the_lists_of_suites() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.partition("\ntest: ")[2].partition("\n\n")[0]
    commands = {" ".join(suite.command) for each in LISTS.values() for suite in each}
    left_out = re.findall(r"\bnot (\w+)", recipe)
    assert set(left_out) == {"long", "examples", "unsteady"}
    assert {f"make test-{each}" for each in left_out} <= commands
    elsewhere = re.search(r"^WITHOUT_PEERS := (.*)", makefile, re.MULTILINE)
    assert elsewhere
    names = re.findall(r"--ignore tests/(\w+?)(?:_peers)?\b", elsewhere[1])
    assert {f"make {name}" for name in names} <= commands


def test_ci_runs_the_gate() -> None:
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert "list=${1:-gate}" in lines
    assert lines[-1] == 'exec make "$list"'


def test_every_option_of_every_command_is_explained(known: dict[str, set[str]]) -> None:
    text = text_of("guide/command-line.md", "recording.md", "replay.md")
    missing = [
        f"{command} {option}"
        for command in COMMANDS
        for option in sorted(known[command])
        if f"`{option}" not in text and not re.search(rf"[ /|]{option}\b", text)
    ]
    assert missing == []


KEYS_OF_NODES = set().union(*kinds._ALLOWED.values())


def test_every_key_of_a_node_is_explained() -> None:
    text = text_of("guide/dataflow-yaml.md")
    assert {key for key in KEYS_OF_NODES if not re.search(rf"`{key}[`:.]", text)} == set()


def test_every_key_of_a_node_can_be_built_in_python_but_what_has_functions_of_its_own() -> None:
    own = {"id", "input_patterns", "operator", "operators", "output_patterns"}
    assert KEYS_OF_NODES - NodeKeys.__annotations__.keys() == own


FLEET_PAGES = (
    "alerts.md",
    "deployments.md",
    "fleet.md",
    "incidents.md",
    "recovery.md",
    "releases.md",
    "rollouts.md",
    "upgrading.md",
    "console.md",
)


def text_of(*pages: str) -> str:
    return "\n".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in pages)


def test_every_option_of_the_fleet_manager_is_explained() -> None:
    text = text_of(*FLEET_PAGES)
    missing = [
        f"{name} {option}"
        for name, command in all_commands(fleet_cli).items()
        for option in options(command) - {"-h", "--help"}
        if option not in text
    ]
    assert missing == []


def test_every_option_of_releases_is_explained() -> None:
    text = (ROOT / "docs/releases.md").read_text(encoding="utf-8")
    every = {
        option
        for name, command in all_commands(fleet_cli).items()
        if name.startswith("release ")
        for option in options(command)
    }
    assert {"--python-lock", "--until"} <= every
    assert {option for option in every if option not in text} <= {"-h", "--help"}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_pages_contain_no_paths_of_the_authors_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"/work\b|/root\b|/shared/|(?<!/var)/tmp/(?!dora-)\S*|@@\w+@@", text) == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_the_rows_of_each_table_have_as_many_cells_as_its_head(page: Path) -> None:
    width = 0
    for line in prose(page).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert cells in (0, width) or width == 0, line
        width = cells


def test_every_start_that_a_reader_types_ends_on_a_terminal() -> None:
    stays = [
        f"{page.name}: {line}"
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.match(r"(\$|root@\S+#) dora start\b(?!.*--detach)", line)
    ]
    assert stays == []


def test_no_page_installs_from_an_index_that_does_not_have_the_package() -> None:
    wrong = [
        f"{page.name}: {command}"
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for command in re.findall(r"pip install '?dorad\b[^`\n]*", page.read_text(encoding="utf-8"))
    ]
    # Where it says when that works.
    assert wrong == ["installation.md: pip install 'dorad[fleet]'"]


def test_the_index_lists_every_page_of_the_guide() -> None:
    index = ROOT / "docs/README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    pages = {page for page in GUIDE if page != index}
    assert {str(page) for page in pages - listed} == set()


def test_the_diagram_is_an_image_that_browsers_draw() -> None:
    drawing = (ROOT / "docs/guide/data-plane.svg").read_text(encoding="utf-8")
    assert drawing.startswith("<svg xmlns=")
    if converter := shutil.which("rsvg-convert"):
        argv = [converter, str(ROOT / "docs/guide/data-plane.svg")]
        done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr.decode()
