"""The coordinator's configuration file, `dorafleet.toml` beside the cluster file.

Every key is optional. An unknown key or section is an error, so that no misspelt key is ignored.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from dorad.dataflow.fields import Fields
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.recording import parse_time
from dorad.dataflow.text import read_text
from dorad.dataflow.toml import read_toml
from dorad.problems import ProblemError
from dorafleet.coordinator.keptincidents import IncidentSettings
from dorafleet.notify.settings import NotifySettings, read_alerts

_log = logging.getLogger(__name__)

FILE = "dorafleet.toml"
MIN_SIZE = 64 << 10
"""Bytes of the smallest limit, and bytes a second of the lowest rate."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file."""

    alerts: NotifySettings = field(default_factory=NotifySettings)
    incidents: IncidentSettings = field(default_factory=IncidentSettings)


class SettingsError(ProblemError):
    """A configuration that cannot be used; `str()` has all problems in one line."""

    def __init__(self, problems: Problems) -> None:
        errors = in_order(problems.errors)
        super().__init__("refused", "; ".join(map(str, errors)), problems=errors)


def load(path: Path) -> Settings:
    """Read the file and those that it names; return the defaults if it does not exist.

    Raises:
        SettingsError: one cannot be read, is invalid, or may be read by others.
    """
    problems = Problems(str(path))
    settings = Settings()
    if not path.is_symlink() and not path.exists():
        return settings
    text = read_text(path, problems, "a configuration of dorafleet")
    root = None if text is None else read_toml(text, problems)
    if root is not None:
        top = Fields(root, problems)
        if (block := top.inside("alerts", "a section")) is not None:
            settings = replace(settings, alerts=read_alerts(block, path))
        if (block := top.inside("incidents", "a section")) is not None:
            settings = replace(settings, incidents=_read_incidents(block))
        top.finish()
    if problems.errors:
        raise SettingsError(problems)
    for warning in in_order(problems.warnings):
        _log.warning("%s", warning)
    return settings


def _read_incidents(block: Fields) -> IncidentSettings:
    sizes = {
        "limit": block.size("limit"),
        "per_robot": block.size("per_robot"),
        "per_day": block.size("per_day"),
        "rate": block.size("rate"),
    }
    keep = block.checked("keep", parse_time, None)
    for name, value in sizes.items():
        if value is not None and value < MIN_SIZE:
            block.problems.error(block.name_of(name), f"must be at least {MIN_SIZE} bytes")
    block.finish()
    given = {name: value for name, value in sizes.items() if value is not None}
    settings = replace(IncidentSettings(), **given)
    return settings if keep is None else replace(settings, keep_s=keep)
