"""The values of options of recording commands: times, tolerances, other names and programs."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.record_options import check_topics, names_in
from dorad.dataflow.durations import parse_duration
from dorad.phrases import moment_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dorad.record.sources import Recording


def finite(context: click.Context, option: click.Parameter, value: float) -> float:
    """Refuse infinity and NaN, which click takes as numbers. Raises click.BadParameter."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number", context, option)
    return value


def replacements(given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the nodes to replay, and the new programs of others, in `--replace`.

    Raises:
        click.UsageError: a part is neither NODE nor NODE=PATH.
    """
    wanted, programs = [], {}
    for text in names_in(given):
        name, equals, path = text.partition("=")
        if not equals:
            wanted.append(name)
        elif not name or not path:
            raise click.UsageError(f"'{text}' is not NODE=PATH")
        else:
            file = Path(path)
            programs[name] = str(file.absolute()) if file.exists() else path
    return wanted, programs


def remapped(given: Sequence[str], known: Collection[str]) -> dict[str, str]:
    """Return the new names of topics in `--remap`; `known` are those of the recording.

    Raises:
        click.UsageError: a part is not A/X=B/Y, or two topics would get one name.
        click.ClickException: the recording has no such topic.
    """
    names: dict[str, str] = {}
    for text in names_in(given):
        old, equals, new = text.partition("=")
        # A topic of ROS 2 may be `/imu`.
        if not equals or "/" not in old or "/" not in new.strip("/"):
            raise click.UsageError(f"--remap '{text}' is not NODE/OUTPUT=NODE/OUTPUT")
        if old in names:
            raise click.UsageError(f"--remap names {old} twice")
        names[old] = new
    check_topics(names, known)
    after = Counter(names.get(topic, topic) for topic in known)
    for topic, count in after.items():
        if count > 1:
            raise click.UsageError(f"--remap makes one topic {topic} of {count}")
    return names


def parse_range(
    start: str | None, end: str | None, recordings: Sequence[Recording]
) -> tuple[int | None, int | None]:
    """Return the times of `--start` and `--end` in ns since 1970, None for those not given.

    Raises:
        click.UsageError: one is not a time, or the end is not after the start.
        click.ClickException: the recordings have no message between them.
    """
    begin = min(each.start for each in recordings)
    last = max(each.end for each in recordings)
    first = parse_moment(start, begin, "--start")
    final = parse_moment(end, begin, "--end")
    if first is not None and final is not None and final <= first:
        raise click.UsageError(f"--end {end} is not after --start {start}")
    if (first is not None and first > last) or (final is not None and final <= begin):
        raise click.ClickException(
            f"there is no message in this range: the recording begins {moment_text(begin)} "
            f"and has {(last - begin) / 1e9:.3f} s"
        )
    return first, final


_RELATIVE = re.compile(r"\+?[\d.]")


def parse_moment(text: str | None, begin: int, option: str) -> int | None:
    """Return a time in ns since 1970: a duration counts from `begin`.

    Raises:
        click.UsageError: the text of `option` is neither.
    """
    if text is None:
        return None
    try:
        if _RELATIVE.match(text) and "T" not in text and "-" not in text:
            return begin + int(parse_duration(text.removeprefix("+")) * 1e9)
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except ValueError:
        raise click.UsageError(
            f"{option} '{text}' is neither a time after the start (90s) nor a date "
            "(2026-05-01T12:00:00)"
        ) from None


def tolerances_of(given: Sequence[str]) -> dict[str, Any]:
    """Return `tolerance` and `tolerances` in the options. Raises click.UsageError."""
    tolerances: dict[str, Any] = {"tolerance": 0.0, "tolerances": {}}
    for text in given:
        topic, equals, number = text.rpartition("=")
        try:
            value = float(number)
            if not 0 <= value < float("inf"):
                raise ValueError
        except ValueError:
            raise click.UsageError(f"--tolerance '{text}' is not X or TOPIC=X") from None
        if equals:
            tolerances["tolerances"][topic] = value
        else:
            tolerances["tolerance"] = value
    return tolerances
