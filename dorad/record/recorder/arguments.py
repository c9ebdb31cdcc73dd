"""The arguments of `dora-record-node`, and the node that is added to a dataflow."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.dataflow.errors import TextError
from dorad.dataflow.model import RECORDER
from dorad.dataflow.recording import COMPRESSIONS, LOGS_INPUT, NODE_ID, input_name
from dorad.dataflow.settings import RECORD_QUEUE_SIZE
from dorad.dataflow.sizes import parse_size
from dorad.record.recorder.settings import MEMORY, Settings, default_path

if TYPE_CHECKING:
    from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the recorder node."""
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", type=Path, help="file to write")
    place.add_argument("--folder", type=Path, help="folder for a file of each run")
    parser.add_argument("--name", default="recording", help="start of the names in the folder")
    parser.add_argument(
        "--keep",
        type=_seconds,
        metavar="SECONDS",
        help="keep only the last SECONDS, as a black box",
    )
    parser.add_argument(
        "--keep-incidents",
        type=_seconds,
        metavar="SECONDS",
        help="time to keep incidents of a black box",
    )
    parser.add_argument(
        "--max-incidents-size",
        type=_size,
        metavar="SIZE",
        help="size of all incidents that are kept",
    )
    parser.add_argument("--compression", choices=COMPRESSIONS, default="auto")
    parser.add_argument("--split-size", type=_size, metavar="SIZE", help="size of one file")
    parser.add_argument("--split-time", type=_seconds, metavar="SECONDS", help="time of one file")
    parser.add_argument("--max-size", type=_size, metavar="SIZE", help="stop at this size")
    parser.add_argument("--duration", type=_seconds, metavar="SECONDS", help="stop after this time")
    parser.add_argument("--min-free", type=_size, metavar="SIZE", help="disk space to leave free")
    parser.add_argument(
        "--mark", metavar="JSON", help="make an incident of the black box in --folder, then end"
    )
    parser.add_argument(
        "--memory", type=_size, default=MEMORY, metavar="SIZE", help="memory for waiting messages"
    )


def settings_of(given: argparse.Namespace) -> Settings:
    """Return the settings in parsed arguments."""
    path = given.output
    if path is None:
        path = given.folder / default_path(given.name).name
    if given.keep is not None:
        path = given.folder
    return Settings(
        path=path,
        compression=given.compression,
        split_bytes=given.split_size,
        split_s=given.split_time,
        max_bytes=given.max_size,
        duration_s=given.duration,
        min_free=given.min_free,
        memory=given.memory,
        keep_s=given.keep,
        incident_s=given.keep_incidents,
        incident_bytes=given.max_incidents_size,
    )


def arguments_of(settings: Settings) -> str:
    """Return the arguments of the recorder node for these settings, quoted for a shell."""
    place = "--output" if settings.box is None else "--folder"
    words = [place, str(settings.path), "--compression", settings.compression]
    for flag, value in (
        ("--split-size", settings.split_bytes),
        ("--split-time", settings.split_s),
        ("--max-size", settings.max_bytes),
        ("--duration", settings.duration_s),
        ("--min-free", settings.min_free),
        ("--keep", settings.keep_s),
        ("--keep-incidents", settings.incident_s),
        ("--max-incidents-size", settings.incident_bytes),
    ):
        if value is not None:
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def recorder_inputs(topics: Sequence[str], queue_size: int = RECORD_QUEUE_SIZE) -> dict[str, Any]:
    """Return the inputs of the recorder, as in a dataflow file."""
    inputs: dict[str, Any] = {
        input_name(topic): {"source": topic, "queue_size": queue_size} for topic in topics
    }
    inputs[LOGS_INPUT] = {"source": "dora/logs", "queue_size": max(queue_size, RECORD_QUEUE_SIZE)}
    return inputs


def recorder_node(
    topics: Sequence[str], settings: Settings, queue_size: int = RECORD_QUEUE_SIZE
) -> dict[str, Any]:
    """Return the entry of `nodes` that records `topics`."""
    return {
        "id": NODE_ID,
        "path": RECORDER,
        "args": arguments_of(settings),
        "inputs": recorder_inputs(topics, queue_size),
        "spin_us": 0,
    }


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except TextError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value
