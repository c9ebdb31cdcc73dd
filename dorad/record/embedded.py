"""The dataflow that a recording holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.record.mcap.reader import RecordingError, RecordingReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.record.sources import Recording

FOLDER = "folder"
"""Key in `dora.recording`: the folder of the dataflow's file when it was recorded."""

_NAME = "dataflow.yml"


def embedded_dataflow(recordings: Sequence[Recording]) -> tuple[Mapping[str, Any], Path]:
    """Return the descriptor of the first recording that has one, and the path of its file.

    Relative paths in it start in the folder of the recorded dataflow, if this machine has it, else
    in that of the recording.

    Raises:
        RecordingError: no recording holds a dataflow.
        DataflowError: the dataflow is not valid.
    """
    from dorad.dataflow.load import parse

    for each in recordings:
        content = each.attachment(_NAME)
        if content is None:
            continue
        path = _folder(each) / _NAME
        # Its variables were expanded when it was recorded.
        text = content.decode("utf-8", "replace")
        return parse(text, path=path, environ={}).descriptor, path
    first = recordings[0]
    whose = f": it is a recording of {first.maker}" if first.maker else ""
    raise RecordingError(f"{first.path} holds no dataflow{whose}", "name one with --dataflow FILE")


def _folder(recording: Recording) -> Path:
    if isinstance(recording, RecordingReader):
        folder = recording.metadata.get("dora.recording", {}).get(FOLDER, "")
        if folder and Path(folder).is_dir():
            return Path(folder)
    return recording.path.absolute().parent
