"""What is typed on a screen: a filter, the screen to go to, or a program for a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorafleet.console.model.filter import Filter, checked

if TYPE_CHECKING:
    from dorafleet.console.screens.base import ConsoleScreen
    from dorafleet.console.widgets.prompt import Prompt


MAX_KEYS = 300
"""Characters of the columns that are named: labels of robots are among them."""


class Prompting:
    """The prompt of one screen."""

    def __init__(self, screen: ConsoleScreen) -> None:
        self._screen = screen
        self._filter_before = Filter()
        """The filter to go back to if the one that is typed is given up."""

    def ask_filter(self) -> None:
        """Type a filter; the first key replaces the one that there is, or moves in it."""
        self._filter_before = self._screen.filter
        keys = " ".join(self._screen.filter_keys())[:MAX_KEYS]
        hint = "word !word key=value key>10 key~regex" + (f"   keys: {keys}" if keys else "")
        self._ask("filter", self._screen.filter.text, hint, replaces=True)

    def ask_place(self) -> None:
        """Type the screen to go to."""
        self._ask("go", "", "fleet  robot R  logs D N  graph D  top  topics D  alerts  help")

    def ask_program(self) -> None:
        """Type the program that gets what is shown."""
        self._ask("pipe", "less", "a shell command that reads what is shown", replaces=True)

    def _ask(self, kind: str, text: str, hint: str, *, replaces: bool = False) -> None:
        self._screen.prompt.open(kind, text, hint, replaces=replaces)
        self._screen.repaint()

    def take(self, event: Prompt.Typed) -> None:
        """Do what is typed."""
        screen = self._screen
        if event.state != "changed":
            screen.prompt.close()
            screen.query(screen.AUTO_FOCUS).first().focus()
        if event.kind == "filter":
            self._filter(event)
        elif event.state == "entered" and event.kind == "go":
            screen.console.go_to(event.text)
        elif event.state == "entered" and event.kind == "pipe":
            screen.console.pipe(event.text, screen.text_lines())
        screen.repaint()

    def _filter(self, event: Prompt.Typed) -> None:
        screen = self._screen
        if event.state == "given-up":
            screen.set_filter(self._filter_before)
            screen.on_filter_entered()
            return
        wanted, problem = checked(event.text, screen.filter_keys())
        if wanted is not None:
            screen.set_filter(wanted)
            if event.state == "changed":
                screen.bars.clear_message()
            else:
                screen.on_filter_entered()
        elif event.state == "entered":
            # Not its beginning, which was a filter while it was typed.
            screen.set_filter(self._filter_before)
            screen.on_filter_entered()
            screen.report(problem, "warn", 8.0)
        else:
            screen.report(problem, "dim", 2.0)
