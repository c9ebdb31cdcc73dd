"""What is typed on a screen: a filter, the screen to go to, or a program for a pipe."""

from dorad.control.filters import Filter, parse
from dorafleet.console import themes
from dorafleet.console.model.places import completions
from dorafleet.console.screens.bars import Bars
from dorafleet.console.screens.content import ScreenContent
from dorafleet.console.widgets.prompt import Complete, Prompt

MAX_KEYS = 300
"""Characters of the columns that are named: labels of robots are among them."""


class ScreenPrompt:
    """The prompt of one screen."""

    def __init__(self, screen: ScreenContent, bars: Bars) -> None:
        self._screen = screen
        self._bars = bars
        self._filter_before = Filter()
        """The filter to go back to if the one that is typed is given up."""

    def ask_filter(self) -> None:
        """Type a filter; the first key replaces the one that there is, or moves in it."""
        self._filter_before = self._screen.filter
        keys = " ".join(self._screen.filter_keys())[:MAX_KEYS]
        hint = "word !word key=value key>10 key~regex" + (f"   keys: {keys}" if keys else "")
        self._ask("filter", self._screen.filter.text, hint, replaces=True)

    def ask_find(self) -> None:
        """Type a text to search for."""
        self._ask("find", "", "a text   n next  N the one before")

    def ask_place(self) -> None:
        """Type the screen to go to."""
        rows = self._screen.server.fleet.rows
        hint = "fleet  robot R  logs D N  graph D  top  topics D  alerts  help   (tab completes)"
        self._ask("go", "", hint, complete=lambda before: completions(before, rows, themes.NAMES))

    def ask_program(self) -> None:
        """Type the program that gets what is shown."""
        self._ask("pipe", "less", "a shell command that reads what is shown", replaces=True)

    def _ask(
        self,
        kind: str,
        text: str,
        hint: str,
        *,
        replaces: bool = False,
        complete: Complete | None = None,
    ) -> None:
        self._screen.prompt.open(kind, text, hint, replaces=replaces, complete=complete)
        self._screen.repaint()

    def take(self, event: Prompt.Typed) -> None:
        """Do what is typed."""
        screen = self._screen
        if event.state == "completed":
            screen.report(event.text or "nothing fits", "dim")
            return
        if event.state != "changed":
            screen.prompt.close()
            screen.take_focus()
        if event.kind == "filter":
            self._filter(event)
        elif event.kind == "find":
            screen.on_find(event.text, event.state)
        elif event.state == "entered" and event.kind == "go":
            self._go(event.text)
        elif event.state == "entered" and event.kind == "pipe":
            screen.console.pipe(event.text, screen.text_lines())
        screen.repaint()

    def _go(self, text: str) -> None:
        name, *words = text.split() or [""]
        if name in ("q", "quit") and not words:
            self._screen.app.exit()
        elif name == "theme":
            if len(words) == 1 and words[0] in themes.NAMES:
                self._screen.console.use_theme(words[0])
            else:
                self._screen.report(f"name a theme: {' '.join(themes.NAMES)}", "warn")
        elif not self._screen.take_command(text):
            self._screen.console.go_to(text)

    def _filter(self, event: Prompt.Typed) -> None:
        screen = self._screen
        if event.state == "given-up":
            screen.set_filter(self._filter_before)
            screen.on_filter_entered()
            return
        try:
            wanted = parse(event.text, screen.filter_keys())
        except ValueError as error:
            if event.state == "changed":
                screen.report(str(error), "dim", 2.0)
                return
            # Not its beginning, which was a filter while it was typed.
            screen.set_filter(self._filter_before)
            screen.report(str(error), "warn", 8.0)
        else:
            screen.set_filter(wanted)
            if event.state == "changed":
                self._bars.clear_message()
        if event.state == "entered":
            screen.on_filter_entered()
