"""Hooks of MkDocs: links out of docs/ and to folders, and the pages of C headers.

Links to folders of examples lead to their README, those out of docs/ to the first page. A line
`<!-- header: PATH -->` becomes the declarations of a C header with their comments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(\))")
_HEADER = re.compile(r"^<!-- header: (\S+) -->$", re.MULTILINE)
_COMMENT = re.compile(r"^/\*(.*?)\*/\n", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"-- (.*?)(?: -+)?(?:\n\n(.*))?", re.DOTALL)
_FUNCTION = re.compile(r"^\w.*?(\w+)\(", re.MULTILINE)
_NAME = re.compile(r"`(\w+)(?:\(\))?`")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the Markdown of a page with links of the site, and with the headers that it names."""
    here = (ROOT / "docs" / page.file.src_uri).parent

    def replaced(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        if target.is_dir() and (target / "README.md").exists():
            return f"{match[1]}{match[2].rstrip('/')}/README.md{match[3] or ''}{match[4]}"
        if not target.is_relative_to(ROOT / "docs"):
            # README, changelog and licence of the repository are no part of the site.
            return f"]({page.file.src_uri.count('/') * '../'}README.md)"
        return match[0]

    markdown = _HEADER.sub(
        lambda match: header((ROOT / match[1]).read_text(encoding="utf-8")), markdown
    )
    return _LINK.sub(replaced, markdown)


def header(text: str) -> str:
    """Return the Markdown of a C header: a heading for each section and each comment's functions.

    A comment at the beginning of a line describes what follows it until an empty line. One that
    begins with `--` is the title of a section.
    """
    intro, *rest = _COMMENT.split(_declarations(text))[1:]
    pairs = list(zip(rest[1::2], rest[2::2], strict=True))
    functions = set(_FUNCTION.findall("".join(code for _, code in pairs)))
    lines = [_prose(intro, functions)]
    for comment, code in pairs:
        comment = comment.strip()
        section = _SECTION.fullmatch(comment)
        if section is not None:
            lines += [f"## {section[1][0].upper()}{section[1][1:]}", section[2] or ""]
            comment = ""
        for part in re.split(r"\n\n+", code.strip()):
            lines += _part(part, _prose(comment, functions))
            comment = ""
    return "\n\n".join(lines)


def _declarations(text: str) -> str:
    """Return a header without lines for the preprocessor, but for constants."""
    text = re.sub(r'^extern "C" \{\n|^\}\n', "", text, flags=re.MULTILINE)
    return re.sub(r"^#(?!define \w+ \d).*\n", "", text, flags=re.MULTILINE)


def _part(code: str, comment: str) -> Iterator[str]:
    """Yield declarations that one comment describes: heading, code, comment."""
    names = _FUNCTION.findall(code)
    if names:
        yield f"### {names[0]}"
        yield "".join(f'<a id="{name}"></a>' for name in names[1:])
    if code:
        yield f"```c\n{code}\n```"
    yield comment


def _prose(comment: str, functions: set[str]) -> str:
    """Return the text of a comment, with links to the functions that it names."""
    lines = (line.strip() for line in comment.strip().splitlines())

    def linked(match: re.Match[str]) -> str:
        return f"[{match[0]}](#{match[1]})" if match[1] in functions else match[0]

    return _NAME.sub(linked, "\n".join(lines))
