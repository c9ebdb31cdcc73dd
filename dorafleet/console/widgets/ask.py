"""A dialog in which a value is typed; that changes nothing yet."""

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Label
from textual.widgets.input import Selection

from dorad.phrases import shorten
from dorafleet.console.view.words import clean
from dorafleet.console.widgets.confirm import BOX_CSS, DIALOG_CSS, INPUT_CSS, MAX_NAME, Dialog


class Ask(Dialog[bool]):
    """Asks for a value until it is one that can be; ends with whether it was typed."""

    DEFAULT_CSS = f"""
    Ask {{ {DIALOG_CSS} }}
    Ask > Vertical {{ {BOX_CSS} }}
    Ask Label {{ width: 1fr; height: auto; }}
    Ask Input {{ {INPUT_CSS} }}
    """
    CANCELLED = False

    def __init__(
        self, question: str, facts: str, before: str, problem: Callable[[str], str]
    ) -> None:
        """`before` is what is there now; `problem` returns what is wrong with a typed text."""
        super().__init__()
        self._question = question
        self._facts = facts
        self._before = before
        self._problem = problem

    def compose(self) -> ComposeResult:
        """Show what is asked for, with the present value to be replaced."""
        with Vertical():
            yield Label(shorten(clean(self._question), MAX_NAME), markup=False)
            yield Label(shorten(clean(self._facts), MAX_NAME), markup=False)
            yield Label("")
            typed = Input(self._before, id="value", select_on_focus=False)
            typed.cursor_blink = False
            typed.selection = Selection(0, len(self._before))
            yield typed
            yield Label("", id="problem", markup=False)
            yield Label("enter continues to the question, esc cancels", markup=False)

    def on_mount(self) -> None:
        """Let the operator type."""
        self.set_focus(self.query_one("#value", Input))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the value, or say what is wrong with it."""
        event.stop()
        wrong = self._problem(event.value)
        if wrong:
            self.query_one("#problem", Label).update(shorten(clean(wrong), MAX_NAME))
        else:
            self.end(True)
