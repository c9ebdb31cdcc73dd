"""The flat YAML of a dataflow that `dora expand` prints: modules and variables expanded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from yaml import CSafeDumper

from dorad.dataflow.document import core_scalar
from dorad.dataflow.env import escape
from dorad.terminal import visible_json, visible_lines

if TYPE_CHECKING:
    from dorad.dataflow.model import Dataflow

_WIDTH = 1 << 16


def flat_yaml(dataflow: Dataflow) -> str:
    """Return YAML that parses to an equal dataflow in any environment.

    Keys keep the order of the file; comments, anchors and formatting are lost.
    """
    flat = {**dataflow.descriptor}
    if "env" in flat:
        flat["env"] = _literal(flat["env"])
    flat["nodes"] = [
        {**node, "env": _literal(node["env"])} if "env" in node else node
        for node in flat.get("nodes") or ()
    ]
    return dump(flat)


def dump(content: dict[str, Any]) -> str:
    """Return plain values as YAML that parses to the same values; every character is visible."""
    text: str = yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )
    # These characters are in double quotes, where YAML has the same escapes as JSON.
    return visible_json(text)


def _literal(env: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return an `env` mapping escaped so that nothing in it is expanded again."""
    if env is None:
        return None
    return {name: escape(value) if isinstance(value, str) else value for name, value in env.items()}


class _Dumper(CSafeDumper):
    """A YAML dumper that quotes texts which the YAML 1.2 core schema reads as another type.

    Texts with characters that cannot be seen are in double quotes.
    """

    def represent_str(self, text: str) -> yaml.ScalarNode:
        quote = "'" if not isinstance(core_scalar(text), str) else None
        if visible_lines(text) != text:
            quote = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=quote)

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(str, _Dumper.represent_str)
