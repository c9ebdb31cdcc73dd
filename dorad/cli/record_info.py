"""`dora record info`, `list` and `recover`: what recordings contain, and their repair."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.record_options import (
    LOSSY,
    recording_argument,
    recordings_argument,
    report_missing,
)
from dorad.commandline.reports import print_error, print_warning
from dorad.commandline.tables import format_option, print_lines, print_object, print_table
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.record.sources import Recording

INFO_EPILOG = """\b
Examples:
  dora record info day.mcap
  dora record info day.mcap --check
  dora record info day.mcap --format json
"""


@click.command("info", epilog=INFO_EPILOG)
@recording_argument
@click.option("--check", is_flag=True, help="Read all messages, and say which are damaged.")
@format_option
def info(file: Path, *, check: bool, style: str) -> int:
    """Show what the recording FILE contains, and how it ended.

    The status is what its recorder has written at the end; --check reads the whole file. The exit
    code is 1 if the recording is not complete, 3 if messages are damaged.
    """
    from dorad.record.sources import open_recording, verify

    with open_recording(file) as reader:
        if check:
            verify(reader)
        if style == "json":
            print_object({**as_json(reader), "checked": check})
        else:
            for line in _lines(reader):
                click.echo(visible(line))
            checked = "yes, all messages" if check else "no: --check reads all messages"
            click.echo(f"checked      {checked}")
            click.echo()
            seconds = _seconds(reader)
            print_table(
                ("TOPIC", "MESSAGES", "RATE", "TYPE"),
                (
                    (topic, str(count), _rate(count, seconds), ", ".join(reader.types_of(topic)))
                    for topic, count in reader.topics().items()
                ),
            )
        for problem in reader.problems:
            print_warning(problem)
        if lost := report_missing(reader.path, reader.damage.missing()):
            return lost
        whole = reader.status in ("COMPLETE", "FOREIGN") and not reader.problems
        return 0 if whole else 1


def as_json(reader: Recording) -> dict[str, Any]:
    """Return the facts about a recording as JSON values."""
    from dorad.record.damage import dropped_in

    return {
        "path": str(reader.path),
        "status": reader.status,
        "maker": reader.maker or "dora",
        "bytes": reader.size,
        "start_ns": reader.start,
        "end_ns": reader.end,
        "chunks": reader.chunk_count,
        "topics": {
            topic: {"messages": count, "types": reader.types_of(topic)}
            for topic, count in reader.topics().items()
        },
        "dropped": dropped_in(reader.metadata),
        "missing": [each._asdict() for each in reader.damage.missing()],
        "metadata": reader.metadata,
        "attachments": [each.name for each in reader.attachments()],
        "problems": reader.problems,
    }


def _seconds(reader: Recording) -> float:
    return (reader.end - reader.start) / 1e9


def _rate(count: int, seconds: float) -> str:
    return f"{(count - 1) / seconds:.1f} Hz" if count > 1 and seconds > 0 else "-"


def _lines(reader: Recording) -> Iterator[str]:
    from dorad.phrases import size_text
    from dorad.record.damage import dropped_in

    about = reader.metadata.get("dora.recording", {})
    end = reader.metadata.get("dora.end", {})
    reason = end.get("reason", "")
    if reader.maker:
        reason = f"a recording of {reader.maker}"
    yield f"status       {reader.status}{f': {reason}' if reason else ''}"
    if reader.start:
        start = datetime.datetime.fromtimestamp(reader.start / 1e9).astimezone()
        yield f"start        {start.isoformat(sep=' ', timespec='milliseconds')}"
    yield f"duration     {_seconds(reader):.3f} s"
    chunks = f" in {reader.chunk_count} chunks" if reader.chunk_count else ""
    yield f"size         {size_text(reader.size)}{chunks}"
    for key, label in (("robot", "robot"), ("dataflow", "dataflow"), ("version", "version")):
        if about.get(key):
            yield f"{label:12} {about[key]}"
    if about.get("part", "1") != "1":
        yield f"part         {about['part']}"
    files = ", ".join(each.name for each in reader.attachments())
    if files:
        yield f"attached     {files}"
    if end.get("clock_steps_ns"):
        yield f"clock steps  {', '.join(map(_step, end['clock_steps_ns'].split(',')))}"
    for topic, count in dropped_in(reader.metadata).items():
        yield f"dropped      {count} on {topic}"


def _step(text: str) -> str:
    try:
        return f"{int(text[:20]) / 1e9:+.3f} s"
    except ValueError:
        return "not a number"


LIST_EPILOG = """\b
Examples:
  dora record list
  dora record list --check
  dora record list /var/lib/dora/recordings --format json
"""


@click.command("list", epilog=LIST_EPILOG)
@click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default="."
)
@click.option("--check", is_flag=True, help="Read all messages, and say which are damaged.")
@format_option
def list_files(folder: Path, *, check: bool, style: str) -> int:
    """List the recordings in FOLDER, by default this one.

    The status is what the recorder has written at the end; --check reads the whole files. The exit
    code is 1 if a file cannot be read, 3 if messages are damaged, or a part of a recording is not
    among them.
    """
    from dorad.phrases import size_text
    from dorad.record.mcap.reader import RecordingError
    from dorad.record.sources import missing_parts, open_recording, part_of, verify

    rows: list[dict[str, Any]] = []
    parts = []
    code = 0
    for path in sorted((*folder.glob("*.mcap"), *folder.glob("*.drec"))):
        try:
            with open_recording(path) as reader:
                if check:
                    verify(reader)
                code = max(code, report_missing(path, reader.damage.missing()))
                parts.append(part_of(reader))
                rows.append(
                    {
                        "file": path.name,
                        "status": reader.status,
                        "checked": check,
                        "messages": sum(reader.topics().values()),
                        "bytes": reader.size,
                        "seconds": round(_seconds(reader), 3),
                        "start_ns": reader.start,
                    }
                )
        except (RecordingError, OSError) as error:
            print_warning(str(error))
            code = max(code, 1)
    for path, missing in missing_parts(parts):
        code = max(code, report_missing(path, [missing]))
    if style == "json":
        print_lines(rows)
        return code
    print_table(
        ("FILE", "STATUS", "MESSAGES", "SIZE", "DURATION"),
        (
            (
                row["file"],
                row["status"],
                str(row["messages"]),
                size_text(row["bytes"]),
                f"{row['seconds']:.1f} s",
            )
            for row in rows
        ),
    )
    return code


RECOVER_EPILOG = """\b
Examples:
  dora record recover day.mcap
  dora record recover *.mcap

\b
Exit code: 0 if nothing that was in the files is lost, 3 if damaged messages were left out, 1 if a
file cannot be recovered. What the recorder had not written before a crash, at most a quarter of a
second, is in no file.
"""


@click.command("recover", epilog=RECOVER_EPILOG)
@recordings_argument
def recover(files: tuple[Path, ...]) -> int:
    """Repair recordings after a crash, in place."""
    from dorad.phrases import count_text, size_text
    from dorad.record.drec import is_drec
    from dorad.record.mcap.recovery import RecoveryError
    from dorad.record.mcap.recovery import recover as repair

    failed = lossy = False
    for file in files:
        try:
            if is_drec(file):
                raise RecoveryError(
                    f"{file} is a recording of dora 1.x, which is read up to its last message",
                    "`dora record merge FILE -o NEW.mcap` makes an MCAP file of it",
                )
            done = repair(file)
        except RecoveryError as error:
            failed = True
            print_error(str(error))
            continue
        except OSError as error:
            failed = True
            print_error(f"{file} cannot be recovered: {error.strerror}")
            continue
        if not done.changed:
            click.echo(f"{visible(str(file))}: complete, nothing to do")
            continue
        lossy = lossy or not done.lossless
        losses = []
        if done.bad_chunks:
            losses.append(count_text(done.bad_chunks, "damaged chunk"))
        if done.cut:
            losses.append(f"{size_text(done.cut)} at the end")
        lost = f"; lost {' and '.join(losses)}" if losses else "; nothing was lost in it"
        messages = count_text(done.messages, "message")
        click.echo(f"{visible(str(file))}: recovered, {messages}{lost}")
    return 1 if failed else LOSSY if lossy else 0
