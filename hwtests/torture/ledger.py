"""The progress of a node, in a file of words that outlives each of its processes.

Only the running process writes. Each step is one store, so the counts are exact after a kill.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path

SIZE = 4096


class Ledger:
    """The counters of a node.

    `turns` moves with every event; `rechecked` counts arrays verified again when released. For each
    output, `begun` and `done` count messages before and after they are sent. For each input,
    `logged` counts verified messages, `bytes` their payload, `latest` is the highest sequence
    number plus one, and `excused` counts messages that killed processes had taken but not verified.
    `draining` is set while several messages are taken at once.
    """

    def __init__(self, path: Path, outputs: Sequence[str], inputs: Sequence[str]) -> None:
        """Open the file; create it with zeros if it is missing."""
        with path.open("a+b") as file:
            file.truncate(SIZE)
            self._words = memoryview(mmap.mmap(file.fileno(), SIZE)).cast("Q")
        self._outputs = {name: 3 + 2 * n for n, name in enumerate(outputs)}
        first = 3 + 2 * len(outputs)
        self._inputs = {name: first + 4 * n for n, name in enumerate(inputs)}

    @property
    def turns(self) -> int:
        return self._words[0]

    def turn(self) -> None:
        self._words[0] += 1

    @property
    def rechecked(self) -> int:
        return self._words[1]

    def recheck(self) -> None:
        self._words[1] += 1

    @property
    def draining(self) -> bool:
        return bool(self._words[2])

    @draining.setter
    def draining(self, now: bool) -> None:
        self._words[2] = int(now)

    def begun(self, output: str) -> int:
        return self._words[self._outputs[output]]

    def done(self, output: str) -> int:
        return self._words[self._outputs[output] + 1]

    def begin(self, output: str) -> int:
        """Take the next sequence number."""
        number = self._words[self._outputs[output]]
        self._words[self._outputs[output]] = number + 1
        return number

    def finish(self, output: str) -> None:
        self._words[self._outputs[output] + 1] += 1

    def logged(self, input_id: str) -> int:
        return self._words[self._inputs[input_id]]

    def bytes(self, input_id: str) -> int:
        return self._words[self._inputs[input_id] + 1]

    def latest(self, input_id: str) -> int:
        return self._words[self._inputs[input_id] + 2]

    def log(self, input_id: str, sequence: int, size: int) -> None:
        at = self._inputs[input_id]
        self._words[at + 2] = sequence + 1
        self._words[at + 1] += size
        self._words[at] += 1

    def excused(self, input_id: str) -> int:
        return self._words[self._inputs[input_id] + 3]

    def excuse(self, input_id: str, total: int) -> None:
        self._words[self._inputs[input_id] + 3] = total
