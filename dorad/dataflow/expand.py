"""The flat YAML of a dataflow: what `dora expand` prints, environment variables expanded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from yaml import CSafeDumper

from dorad.dataflow.document import core_scalar
from dorad.dataflow.env import escape

if TYPE_CHECKING:
    from typing import Any

    from dorad.dataflow.model import Dataflow

_WIDTH = 1 << 16


def flat_yaml(dataflow: Dataflow) -> str:
    """YAML that parses to an equal dataflow whatever the environment then is.

    Keys keep the order of the file; comments, anchors and ways of writing are lost.
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
    """The text of a file with these plain values, which parses to them again."""
    text: str = yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )
    return text


def _literal(env: dict[str, Any] | None) -> dict[str, Any] | None:
    """An `env` mapping spelt so that nothing in it is expanded again."""
    if env is None:
        return None
    return {name: escape(value) if isinstance(value, str) else value for name, value in env.items()}


class _Dumper(CSafeDumper):
    """Quotes every text that the YAML 1.2 core schema would read as something else."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        quote = "'" if not isinstance(core_scalar(text), str) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=quote)

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(str, _Dumper.represent_str)
