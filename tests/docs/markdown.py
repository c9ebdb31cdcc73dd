"""Reading our Markdown pages: their sections, named files, shell sessions and links.

A line that holds only a file's name in backticks and a colon names the code block after it. All
named files of a section belong into one folder. A `console` block is a session in that folder:
lines after `$ ` are commands, the others are what they print. After `root@robot1:/opt/cart# ` they
are commands on that robot, in that folder.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if "out" not in path.relative_to(ROOT).parts
)

_HEADING = re.compile(r"(#{1,6}) +(.*)")
_FILE_NAME = re.compile(r"`([\w./-]+\.\w+)`:")
_PROMPT = re.compile(r"(?:\$|root@(?P<robot>[\w-]+):(?P<folder>\S+)#) (?P<command>.*)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass
class Block:
    """A fenced code block; `name` is its file name, if the page has one.

    `broken` marks an example of a mistake: the word follows the language.
    """

    language: str
    text: str
    line: int
    name: str | None = None
    broken: bool = False


@dataclass
class Section:
    """The content between one heading and the next."""

    page: Path
    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def files(self) -> dict[str, str]:
        return {block.name: block.text for block in self.blocks if block.name is not None}

    @property
    def sessions(self) -> list["Command"]:
        texts = [block.text for block in self.blocks if block.language == "console"]
        return [command for text in texts for command in commands(text)]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.title}"


@dataclass
class Command:
    """A command of a session, the lines it prints, and its exit code."""

    line: str
    expected: list[str] = field(default_factory=list)
    code: int = 0
    robot: str | None = None
    """Where it runs, if it is not in the reader's own shell."""
    folder: str | None = None
    """In which folder of the robot."""

    def check(self, code: int, text: str) -> None:
        """Check the exit code, and that each expected line is printed, in any order."""
        assert code == self.code, f"`{self.line}` ended with {code}; it printed:\n{text}"
        printed = [line.rstrip() for line in text.splitlines()]
        for line in self.expected:
            if line.strip() != "...":
                assert any(map(_pattern(line).fullmatch, printed)), f"no line {line!r} in:\n{text}"


def _pattern(line: str) -> re.Pattern[str]:
    """Return a pattern for an expected line: `...` is any text, a time of day any time.

    The width of columns varies, so several spaces match any number.
    """
    line = re.sub(r"^\d\d:\d\d:\d\d ", "00:00:00 ", line.rstrip())
    escaped = re.sub(r"(\\ ){2,}", " +", re.escape(line)).replace(r"\.\.\.", ".*")
    return re.compile(escaped.replace("00:00:00", r"\d\d:\d\d:\d\d"))


def sections(page: Path) -> list[Section]:
    found = [Section(page, page.stem)]
    block: Block | None = None
    lines: list[str] = []
    previous = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if block is not None:
            if line.strip() == "```":
                block.text = "".join(f"{text}\n" for text in lines)
                block = None
            else:
                lines.append(line)
        elif line.startswith("```"):
            name = _FILE_NAME.fullmatch(previous)
            language, _, rest = line[3:].strip().partition(" ")
            block = Block(language, "", number, name[1] if name else None, rest == "broken")
            lines = []
            found[-1].blocks.append(block)
        elif heading := _HEADING.fullmatch(line):
            found.append(Section(page, heading[2]))
        if line.strip():
            previous = line.strip()
    assert block is None, f"{page}: a code block is never closed"
    return found


def commands(session: str) -> list[Command]:
    """Return the commands of a session; `echo $?` gives its predecessor's exit code."""
    found: list[Command] = []
    for line in session.splitlines():
        if prompt := _PROMPT.fullmatch(line):
            command = prompt["command"].partition("  #")[0].strip()
            found.append(Command(command, robot=prompt["robot"], folder=prompt["folder"]))
        elif line.strip():
            assert found, f"a session begins with a command, not with {line!r}"
            found[-1].expected.append(line)
    reported = [at for at, command in enumerate(found) if command.line == "echo $?"]
    for at in reported:
        found[at - 1].code = int(found[at].expected[0])
    return [command for at, command in enumerate(found) if at not in reported]


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)


def links(page: Path) -> list[str]:
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, as GitHub makes them."""
    titles = [section.title for section in sections(page)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
