"""The line in which a filter, a screen or a command is typed."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.events import Key
from textual.message import Message
from textual.widgets import Input, Label
from textual.widgets.input import Selection

Complete: TypeAlias = Callable[[str], Sequence[str]]

MAX_HISTORY = 100
"""Texts of one kind that are kept."""

LABELS: Mapping[str, str] = {
    "filter": "filter:",
    "find": "find:",
    "go": "go to:",
    "pipe": "pipe into:",
}
"""What stands before what is typed."""


class Prompt(Input):
    """Where the operator types. It reports what is typed, and what is entered."""

    DEFAULT_CSS = """
    Prompt {
        width: 1fr; height: 1; border: none; padding: 0 1; background: $background;
        overflow: hidden hidden;
    }
    Prompt:focus { border: none; }
    """

    class Typed(Message):
        """The text has changed, is entered, or is given up."""

        def __init__(self, kind: str, text: str, state: str) -> None:
            """`state` is `changed`, `entered` or `given-up`; `completed` has the words that fit."""
            super().__init__()
            self.kind, self.text, self.state = kind, text, state

    def __init__(self, history: dict[str, list[str]]) -> None:
        """`history` has what was typed before, by kind, and gets what is entered."""
        super().__init__(id="prompt", select_on_focus=False)
        self.cursor_blink = False
        self.kind = ""
        """What is being typed, as in `LABELS`."""
        self.complete: Complete | None = None
        """Returns the words that may follow a text; None for what has no such words."""
        self.history = history
        self._back = 0
        """How many texts ago the one was typed that is shown; 0 for a new one."""

    def open(self, kind: str, text: str, hint: str, *, replaces: bool) -> None:
        """Let the operator change this text, or replace it by what he types."""
        self.kind, self._back = kind, 0
        self.placeholder = hint
        self.value = text
        self.selection = Selection(0 if replaces else len(text), len(text))
        self.screen.set_focus(self)  # at once, see `ScreenContent.take_focus`

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
            case "tab" if self.complete is not None:
                self._complete()
            case "up" | "down":
                self._recall(1 if event.key == "up" else -1)
            case _:
                return
        event.stop()
        event.prevent_default()

    def _complete(self) -> None:
        """Complete the last word, as far as all that fit agree, and report which do."""
        assert self.complete is not None
        before, _, word = self.value.rpartition(" ")
        fitting = [each for each in self.complete(before) if each.startswith(word)]
        if fitting:
            end = " " if len(fitting) == 1 else ""
            common = fitting[0]
            while not all(each.startswith(common) for each in fitting):
                common = common[:-1]
            self.value = f"{before} " * bool(before) + common + end
            self.cursor_position = len(self.value)
        if len(fitting) != 1:
            self.post_message(self.Typed(self.kind, " ".join(fitting), "completed"))

    def _recall(self, steps: int) -> None:
        """Show what was typed before, or after that."""
        typed = self.history.get(self.kind, [])
        self._back = min(max(self._back + steps, 0), len(typed))
        self.value = typed[-self._back] if self._back else ""
        self.cursor_position = len(self.value)

    def give_up(self) -> None:
        """End the line without doing anything."""
        self._end("given-up")

    def _end(self, state: str) -> None:
        kind, self.kind = self.kind, ""
        if state == "entered" and self.value.strip():
            typed = self.history.setdefault(kind, [])
            if self.value in typed:
                typed.remove(self.value)
            typed.append(self.value)
            del typed[:-MAX_HISTORY]
        self.post_message(self.Typed(kind, self.value, state))


class PromptLine(Horizontal):
    """The prompt behind a label that says what is typed; hidden until it is opened."""

    DEFAULT_CSS = """
    PromptLine { display: none; height: 1; }
    PromptLine.open { display: block; }
    PromptLine Label { width: auto; padding: 0 0 0 1; text-style: bold; }
    """

    def __init__(self, history: dict[str, list[str]]) -> None:
        super().__init__()
        self._history = history
        self.ending = False
        """Whether a key that ends the line is under way: the next one is for another widget."""

    def compose(self) -> ComposeResult:
        """Put the label before the prompt."""
        yield Label("", id="prompt-label", markup=False)
        yield Prompt(self._history)

    @property
    def kind(self) -> str:
        """What is being typed; empty if nothing is."""
        return self.query_one(Prompt).kind

    def open(
        self,
        kind: str,
        text: str,
        hint: str,
        *,
        replaces: bool = False,
        complete: Complete | None = None,
    ) -> None:
        """Show the line; what is typed is added to the text, or `replaces` it.

        `complete` returns the words that may follow a text.
        """
        self.add_class("open")
        self.query_one("#prompt-label", Label).update(LABELS[kind])
        prompt = self.query_one(Prompt)
        prompt.complete = complete
        prompt.open(kind, text, hint, replaces=replaces)

    def give_up(self) -> None:
        """End the line without doing anything."""
        self.query_one(Prompt).give_up()

    def close(self) -> None:
        """Hide the line."""
        self.ending = False
        self.remove_class("open")
