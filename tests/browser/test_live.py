"""The live graph in a real browser: it shows what the daemon answers, and nothing old."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.browser import Page
from tests.harness.daemon import Daemon, daemon
from tests.view.test_graph_live import ADDRESS, flow

pytestmark = pytest.mark.timeout(200)

NONE = {"\N{EN DASH}"}
FIGURES = """
    [...document.querySelectorAll('.figures')].map(each =>
      [each.dataset.wire, each.textContent, each.classList.contains('bad')])
""".strip()


@contextmanager
def serving(*words: str | Path, env: Mapping[str, str], cwd: Path) -> Iterator[str]:
    """Run `dora graph --live`; yield the address that it prints."""
    program = Path(sys.executable).parent / "dora"
    with subprocess.Popen(
        [program, "graph", "--live", "--port", "0", *words],
        env=env,
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            found = next(filter(None, map(ADDRESS.search, process.stderr)), None)
            assert found, "it ended without an address"
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def status(page: Page, node: str) -> str:
    return page.text(f'[data-box="{node}"] .status')


def test_a_page_shows_the_rates_drops_and_states_that_the_daemon_answers(
    page: Page, dorad: Daemon, tmp_path: Path
) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    with serving(env=dorad.env, cwd=tmp_path) as address, dorad.client() as client:
        page.goto(address)
        page.until(f"{FIGURES}.some(([wire, text, bad]) => wire === 'logger/image' && bad)")
        page.until(
            f"{FIGURES}.some(([wire, text]) => wire === 'detector/image' && /[mµ]s/.test(text))"
        )
        shown = {wire: (text, bad) for wire, text, bad in page.run(FIGURES)}
        edges = {each.target: each for each in client.top().edges}
        assert shown.keys() == {"detector/image", "logger/image"}
        text, bad = shown["detector/image"]
        assert not bad
        assert float(text.split("/s")[0]) == pytest.approx(edges["detector/image"].rate, rel=0.5)
        text, bad = shown["logger/image"]
        assert bad
        dropped = re.match(r"▼([\d.]+)/s", text)
        assert dropped
        assert float(dropped[1]) == pytest.approx(edges["logger/image"].drop_rate, rel=0.5)
        assert status(page, "camera").startswith("● running")
        assert page.text("#state").startswith("live")
        assert page.text("#problems") == "✗ 1 problem"
        assert page.run(
            "document.querySelector('[data-target=logger]').classList.contains('dropping')"
        )
        own = address.partition("#")[0]
        foreign = [
            each
            for each in page.requests
            if not each.startswith((own, own.replace("http", "ws"), "about:"))
        ]
        assert foreign == []

        # A click opens the details, with their past.
        page.click('[data-box="logger"]')
        page.until("document.querySelectorAll('aside .trace').length > 0")
        assert "logger" in page.text("aside h2")
        assert "running" in page.text("aside table")
        page.until("document.querySelectorAll('aside .curve').length > 0")
        page.key("Escape")
        assert page.run("document.querySelector('aside').hidden")
        page.key("n")
        page.click("#problems")
        assert "logger/image drops" in page.text("aside ol")

        # What a node dies of is there, too.
        client.stop_node("detector", dataflow="demo")
        page.until("document.querySelector('[data-box=detector]').classList.contains('stopped')")
        client.stop("demo")
        page.until("document.querySelector('#state').textContent.includes('ended')")
        assert {text for _, text, _ in page.run(FIGURES)} == NONE


def test_a_wrong_token_shows_nothing_but_how_to_get_the_right_one(
    page: Page, dorad: Daemon, tmp_path: Path
) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    with serving(env=dorad.env, cwd=tmp_path) as address:
        for wrong in (
            address[:-1] + ("a" if address[-1] != "a" else "b"),
            address.partition("#")[0],
            f"{address} é",
        ):
            page.goto(wrong)
            page.until(
                "document.querySelector('#alert')?.textContent.includes('lacks the right token')"
            )
            assert page.run("document.querySelectorAll('.box').length") == 0
        page.goto(address)
        page.until("document.querySelectorAll('.box').length === 4")


def test_without_a_daemon_no_old_figure_looks_live_and_its_return_is_seen(
    page: Page, tmp_path: Path
) -> None:
    with daemon() as own:
        own.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
        with serving("demo", env=own.env, cwd=tmp_path) as address:
            page.goto(address)
            page.until(f"{FIGURES}.length && {FIGURES}.every(([, text]) => text.includes('/s'))")
            own.kill()
            page.until("!document.querySelector('#alert').hidden")
            assert {text for _, text, _ in page.run(FIGURES)} == NONE
            assert page.text("#state") == "not live"
            own.start()
            page.until(f"{FIGURES}.every(([, text]) => text.includes('/s'))")
            assert page.run("document.querySelector('#alert').hidden")
        page.until("document.querySelector('#alert').textContent.includes('is lost')")
        assert {text for _, text, _ in page.run(FIGURES)} == NONE
        own.dora_ok("stop", "demo")


def test_figures_that_stop_coming_are_no_longer_shown(
    page: Page, dorad: Daemon, tmp_path: Path
) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    with serving("demo", env=dorad.env, cwd=tmp_path) as address:
        page.goto(address)
        page.until(f"{FIGURES}.length && {FIGURES}.every(([, text]) => text.includes('/s'))")
        page.run(f"socket.onmessage = null; {json.dumps(1)}")
        page.until("document.querySelector('#alert').textContent.includes('no figures have come')")
        assert {text for _, text, _ in page.run(FIGURES)} == NONE
