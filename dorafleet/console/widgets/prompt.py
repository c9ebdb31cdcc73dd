"""The line in which a filter, a screen or a command is typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label
from textual.widgets.input import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.app import ComposeResult
    from textual.events import Key

LABELS: Mapping[str, str] = {"filter": "filter:", "go": "go to:", "pipe": "pipe into:"}
"""What stands before what is typed."""


class Prompt(Input):
    """Where the operator types. It reports what is typed, and what is entered."""

    DEFAULT_CSS = """
    Prompt { width: 1fr; height: 1; border: none; padding: 0 1; background: $background; }
    Prompt:focus { border: none; }
    """

    class Typed(Message):
        """The text has changed, is entered, or is given up."""

        def __init__(self, kind: str, text: str, state: str) -> None:
            """`state` is `changed`, `entered` or `given-up`."""
            super().__init__()
            self.kind, self.text, self.state = kind, text, state

    def __init__(self) -> None:
        super().__init__(id="prompt", select_on_focus=False)
        self.cursor_blink = False
        self.kind = ""
        """What is being typed: `filter`, `go` or `pipe`."""

    def open(self, kind: str, text: str, hint: str, *, replaces: bool) -> None:
        """Let the operator change this text, or replace it by what he types."""
        self.kind = kind
        self.placeholder = hint
        self.value = text
        self.selection = Selection(0 if replaces else len(text), len(text))
        self.screen.set_focus(self)  # `focus` would do it after the keys that have come by now

    def on_input_changed(self, event: Input.Changed) -> None:
        """Report each change."""
        event.stop()
        if self.kind:
            self.post_message(self.Typed(self.kind, event.value, "changed"))

    def on_key(self, event: Key) -> None:
        """Take the keys that end or empty the line here, in the order in which they were typed.

        A binding would be looked up later than the text that follows the key.
        """
        match event.key:
            case "escape":
                self._end("given-up")
            case "enter":
                self._end("entered")
            case "ctrl+u":
                self.value = self.value[self.cursor_position :]
                self.cursor_position = 0
            case _:
                return
        event.stop()
        event.prevent_default()

    def give_up(self) -> None:
        """End the line without doing anything."""
        self._end("given-up")

    def _end(self, state: str) -> None:
        kind, self.kind = self.kind, ""
        self.post_message(self.Typed(kind, self.value, state))


class PromptLine(Horizontal):
    """The prompt behind a label that says what is typed; hidden until it is opened."""

    DEFAULT_CSS = """
    PromptLine { display: none; height: 1; }
    PromptLine.open { display: block; }
    PromptLine Label { width: auto; padding: 0 0 0 1; text-style: bold; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.ending = False
        """Whether a key that ends the line is under way: the next one is for another widget."""

    def compose(self) -> ComposeResult:
        """Put the label before the prompt."""
        yield Label("", id="prompt-label", markup=False)
        yield Prompt()

    @property
    def kind(self) -> str:
        """What is being typed; empty if nothing is."""
        return self.query_one(Prompt).kind

    def open(self, kind: str, text: str, hint: str, *, replaces: bool = False) -> None:
        """Show the line; what is typed is added to the text, or `replaces` it."""
        self.add_class("open")
        self.query_one("#prompt-label", Label).update(LABELS[kind])
        self.query_one(Prompt).open(kind, text, hint, replaces=replaces)

    def give_up(self) -> None:
        """End the line without doing anything."""
        self.query_one(Prompt).give_up()

    def close(self) -> None:
        """Hide the line."""
        self.ending = False
        self.remove_class("open")
