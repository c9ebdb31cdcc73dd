"""Dialogs: choose an action, and confirm it. The cursor starts on Cancel."""

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Click, Key, Resize
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label

from dorad.phrases import first_of, shorten
from dorafleet.console.model.commands import Action
from dorafleet.console.model.targets import Target
from dorafleet.console.view.bars import fits
from dorafleet.console.view.words import clean, counted

T = TypeVar("T")

DIALOG_CSS = """
    align: center middle;
    background: $background 60%;
"""
WIDTH = 70
"""Columns of a question, on a terminal that has them."""
BOX_CSS = f"""
    width: {WIDTH}; max-width: 100%; height: auto; border: round $accent; padding: 0 1;
    background: $background;
"""
INPUT_CSS = "height: 1; border: none; padding: 0; background: $background;"
MAX_LISTED = 6
"""Targets that a dialog names."""
MIN_LISTED = 2
"""Targets that it names on a low terminal."""
LOW = 22
"""A terminal of fewer lines is low."""
MAX_NAME = 200
"""Characters of a name that are shown."""
MAX_COMMAND, MAX_LOW_COMMAND = 400, 160
"""Characters of a command that are shown, and on a low terminal: the answers must fit below."""
MARGINS = 6
"""Columns of a dialog that the line of a target does not have."""
_DIGITS = tuple("0123456789")
_BUTTON_HINT = "left right choose, enter, esc cancels"
_TYPE_HINT = "type the number, enter, esc cancels"
_EARLY_HINT = "typed before this was shown: again?"
MAX_TYPED = 20
"""Characters of a wrong number that are repeated."""


class Dialog(ModalScreen[T]):
    """A dialog that ends once, and that is cancelled when the terminal gets too small for it."""

    CANCELLED: T
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", priority=True),
        # A dialog hides the keys of the app.
        Binding("ctrl+z", "app.suspend_process", priority=True),
        Binding("ctrl+l", "app.repaint", priority=True),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._ended = False

    @property
    def takes_keys(self) -> bool:
        """Whether keys are for this dialog."""
        return self.is_mounted and not self._ended

    def take(self, key: Key) -> bool:
        """Do at once what a key does to the whole dialog; return False if it does nothing."""
        del key
        return False

    def end(self, result: T) -> None:
        """Close with a result; a second key that was already under way does nothing.

        Textual's `dismiss` would close the screen under the dialog then.
        """
        if not self._ended:
            self._ended = True
            self.dismiss(result)

    def action_cancel(self) -> None:
        """Close without doing anything."""
        self.end(self.CANCELLED)

    def on_resize(self, event: Resize) -> None:
        """Cancel if no more input can come."""
        if not fits(*event.size):
            self.action_cancel()


class Option(Label):
    """A line to choose by a click."""

    DEFAULT_CSS = """
    Option:hover { text-style: reverse; }
    Option:disabled { color: $foreground 60%; }
    """

    class Chosen(Message):
        """The line was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, key: str, text: str) -> None:
        super().__init__(markup=False)
        self.key = key
        self.say(text)

    def say(self, text: str) -> None:
        """Show this text after the key."""
        self.update(f"  {self.key}   {shorten(clean(text), MAX_NAME)}")

    def on_click(self, event: Click) -> None:
        """Choose this one."""
        event.stop()
        self.post_message(self.Chosen(self.key))


class Choose(Dialog[str]):
    """Lists options with their keys, and ends with the key of one; that changes nothing yet."""

    DEFAULT_CSS = f"""
    Choose {{ {DIALOG_CSS} }}
    Choose > Vertical {{
        width: auto; max-width: 70; height: auto; border: round $accent; padding: 0 1;
        background: $background;
    }}
    Choose Label {{ width: auto; max-width: 66; }}
    """
    CANCELLED = ""

    def __init__(self, question: str, options: Mapping[str, str]) -> None:
        """`options` are texts by their keys."""
        super().__init__()
        self._question = question
        self._options = dict(options)
        self._refused: set[str] = set()

    def compose(self) -> ComposeResult:
        """Show the options with their keys."""
        with Vertical():
            yield Label(shorten(clean(self._question), MAX_NAME), markup=False)
            yield Label("")
            for key, text in self._options.items():
                option = Option(key, text)
                option.disabled = key in self._refused
                yield option
            yield Label("")
            yield Label("esc cancels", markup=False)

    def refuse(self, key: str, why: str) -> None:
        """Show why an option cannot be chosen, from now on."""
        self._options[key] = why
        self._refused.add(key)
        for option in self.query(Option):
            if option.key == key:
                option.say(why)
                option.disabled = True

    def take(self, key: Key) -> bool:
        """Choose by key."""
        if key.character is None or key.character not in self._options.keys() - self._refused:
            return False
        self.end(key.character)
        return True

    def on_option_chosen(self, event: Option.Chosen) -> None:
        """Choose by a click."""
        event.stop()
        self.end(event.key)


class Confirm(Dialog[bool]):
    """Asks before something is changed; for several rows or robots their number must be typed."""

    DEFAULT_CSS = f"""
    Confirm {{ {DIALOG_CSS} }}
    Confirm > Vertical {{ {BOX_CSS} }}
    Confirm Label {{ width: 1fr; height: auto; }}
    Confirm Horizontal {{ height: auto; align-horizontal: right; }}
    Confirm Button {{
        height: 1; border: none; margin-left: 2; min-width: 10; line-pad: 1;
        background: $background; color: $foreground; text-style: none;
    }}
    Confirm Button:focus {{ text-style: reverse; background: $background; }}
    Confirm #hint {{ color: $foreground 60%; }}
    Confirm Input {{ {INPUT_CSS} }}
    """
    CANCELLED = False
    BINDINGS: ClassVar[list[BindingType]] = [("left,right", "app.focus_next", "Other button")]

    def __init__(
        self,
        action: Action,
        targets: Sequence[Target],
        command: str,
        plan: str,
        *,
        readable_after: float,
    ) -> None:
        """`plan` is what it would change; empty if `action` and `targets` say all.

        `readable_after` are the seconds after which an operator may have read the question.
        """
        super().__init__()
        self._readable_after = readable_after
        self._readable_at = float("inf")
        self._action = action
        self._targets = targets
        self._command = command
        self._plan = plan
        self._robots = [robot for each in targets for robot in each.switches.get(action.name, ())]
        number = len(self._robots) if action.wide else len(targets)
        self._number = str(number) if number > 1 else ""

    def compose(self) -> ComposeResult:
        """Show what would happen, and the command that does the same."""
        low = self.app.size.height < LOW
        listed = MIN_LISTED if low else MAX_LISTED
        line = min(self.app.size.width, WIDTH) - MARGINS
        with Vertical():
            yield Label(clean(f"{self._action.title}?"), markup=False)
            for target in self._targets[:listed]:
                limit = MAX_NAME if len(self._targets) == 1 else line
                yield Label(f"  {shorten(clean(str(target)), limit)}", markup=False)
            if len(self._targets) > listed:
                yield Label(f"  and {len(self._targets) - listed} more", markup=False)
            if self._action.wide:
                text = f"  {self._switching(listed)}"
                yield Label(shorten(clean(text), line if low else MAX_NAME), markup=False)
            if self._plan:
                yield Label(shorten(clean(self._plan), line if low else MAX_NAME), markup=False)
            if self._action.warns:
                yield Label(self._action.warns, markup=False)
            each = "   (the same for each)" if len(self._targets) > 1 else ""
            command = shorten(clean(self._command), MAX_LOW_COMMAND if low else MAX_COMMAND)
            yield Label(f"$ {command}{each}", markup=False)
            if self._number:
                yield Label(f"Type {self._number} to confirm:", id="ask", markup=False)
                number = Input(id="number")
                number.cursor_blink = False
                yield number
            with Horizontal():
                yield Label(_TYPE_HINT if self._number else _BUTTON_HINT, id="hint", markup=False)
                yield Button("Cancel", id="cancel")
                yield Button("Do it", id="go")

    def _switching(self, listed: int) -> str:
        """Return which robots switch."""
        if not self._robots:
            return "no robot switches"
        return f"{counted(len(self._robots), 'robot')}: {first_of(self._robots, listed)}"

    def on_mount(self) -> None:
        """Let the cursor start on Cancel."""
        for button in self.query(Button):
            button.active_effect_duration = 0.0  # it takes no key meanwhile
        self.set_focus(self.query_one("#cancel", Button))
        self._readable_at = time.monotonic() + self._readable_after

    def on_key(self, event: Key) -> None:
        """Take a digit for the number that is asked for, even while a button has the focus."""
        if self._number and event.character in _DIGITS and isinstance(self.focused, Button):
            event.stop()
            number = self.query_one("#number", Input)
            number.focus()
            number.insert_text_at_cursor(event.character)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Do it, or not."""
        event.stop()
        if event.button.id == "go":
            self._confirm()
        else:
            self.end(False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Do it once the right number is typed."""
        event.stop()
        self._confirm()

    @property
    def readable(self) -> bool:
        """Whether the operator may have read the question."""
        return time.monotonic() >= self._readable_at

    def _confirm(self) -> None:
        """Do it, unless a number is asked for and another one is typed.

        What was typed before the question was shown was meant for something else.
        """
        if not self.readable:
            self.query_one("#hint", Label).update(_EARLY_HINT)
            return
        if not self._number:
            self.end(True)
            return
        number = self.query_one("#number", Input)
        typed = number.value.strip()
        if typed == self._number:
            self.end(True)
            return
        wrong = f", not {clean(typed)[:MAX_TYPED]}" if typed else ""
        self.query_one("#ask", Label).update(f"Type {self._number} to confirm{wrong}:")
        number.focus()
