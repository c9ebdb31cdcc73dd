"""The page on security: each test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_claim_of_the_security_page_names_tests_that_exist() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("tests", "hwtests")
        for path in (ROOT / folder).rglob("test_*.py")
    ]
    defined = {name for text in sources for name in re.findall(r"def (test_\w+)\(", text)}
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 30
    assert named <= defined, named - defined
    for path in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (ROOT / path).is_file(), path
    claims = [line for line in page.splitlines() if line.startswith("| ") and line.count("|") == 4]
    for line in claims:
        if not line.startswith(("| claim ", "|---")):
            assert re.search(r"`(test_|tests/|make )", line), line
