"""`dorad-agent release`: manage the releases on this robot, over SSH."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from dorad.release.signature import ALLOWED, REVOKED

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.release.trees import Trees

MAX_LINE = 16 << 10
"""Characters of a key in a file; one of 16,384 bits has 2,800."""
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
def release() -> None:
    """Receive, list and check signed releases; `dorafleet release push` uses it over SSH."""


@release.command(context_settings=CONTEXT)
@click.pass_obj
def receive(folder: Path) -> int:
    """Take a release from stdin, as `dorafleet release push` sends it."""
    from dorad.release.errors import ReleaseError
    from dorad.release.receive import Receiver, SenderLostError

    if sys.stdin.isatty():
        raise click.UsageError("this is the other end of `dorafleet release push`")
    try:
        Receiver(_trees(folder), sys.stdin.fileno(), sys.stdout.fileno()).run()
    except SenderLostError as error:
        raise click.ClickException(f"{error}; what has arrived is kept") from error
    except ReleaseError:
        # The sender shows the reason, which it was sent.
        return 1
    return 0


@release.command("list", context_settings=CONTEXT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(folder: Path, *, as_json: bool) -> int:
    """List the releases on this robot, complete or not. Exit code 1: a manifest is damaged."""
    import msgspec

    from dorad.terminal import visible

    trees = _trees(folder)
    ready = set(trees.ids())
    rows = [_row(trees, each, ready=each in ready) for each in trees.manifests()]
    if as_json:
        click.echo(msgspec.json.encode(rows))
    else:
        for row in rows:
            click.echo(visible(_line(row)))
    return 1 if any(row["problem"] for row in rows) else 0


def _row(trees: Trees, release: str, *, ready: bool) -> dict[str, Any]:
    """Return the facts about a release on this robot."""
    from dorad.release.errors import ReleaseError

    try:
        manifest = trees.manifest(release)
    except ReleaseError as error:
        return {"release": release, "ready": ready, "problem": error.message}
    lacking = trees.lacking(manifest)
    return {
        "release": release,
        "name": manifest.name,
        "sequence": manifest.sequence,
        "created": manifest.created,
        "ready": ready,
        "lacking": len(lacking),
        "lacking_bytes": sum(one.size for one in lacking),
        "problem": "",
    }


def _line(row: dict[str, Any]) -> str:
    """Return a row for people."""
    if row["problem"]:
        return f"{row['release'][:12]}  {row['problem']}"
    state = "ready" if row["ready"] else f"{row['lacking']} files are lacking"
    return f"{row['release'][:12]}  {row['name']} {row['sequence']}  {state}"


@release.command(context_settings=CONTEXT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def machine(folder: Path, *, as_json: bool) -> None:
    """Show for which machine releases must be built to run here."""
    import msgspec

    from dorad.release.machine import this_machine

    machine = this_machine()
    click.echo(msgspec.json.encode(machine) if as_json else str(machine.target))


@release.command(context_settings=CONTEXT)
@click.argument("release_id", metavar="RELEASE")
@click.pass_obj
def verify(folder: Path, *, release_id: str) -> None:
    """Check signature and every file of a release here, and make its tree if it is complete."""
    tree = _trees(folder).stage(release_id, allow_lower=True)
    click.echo(f"release {tree.id[:12]} is complete: {tree.folder}")


@release.command(context_settings=CONTEXT)
@click.pass_obj
def trust(folder: Path) -> None:
    """Add the line on stdin to the keys that may sign: as in `allowed_signers`."""
    _add(folder, ALLOWED)


@release.command(context_settings=CONTEXT)
@click.pass_obj
def revoke(folder: Path) -> None:
    """Revoke the public key on stdin."""
    _add(folder, REVOKED)


def _add(folder: Path, name: str) -> None:
    """Add the line on stdin to a file of keys, unless it is there. As root: the file is root's."""
    from dorad.agent.folder import signers_folder
    from dorad.release.signature import add_line

    line = sys.stdin.readline(MAX_LINE + 1).strip()
    if len(line) > MAX_LINE:
        raise click.ClickException(f"the line has more than {MAX_LINE} characters")
    click.echo(add_line(signers_folder(folder) / name, line))


def _trees(folder: Path) -> Trees:
    from dorad.agent.folder import open_folder, releases_folder, signers_folder
    from dorad.release.signature import Signers
    from dorad.release.trees import SYSTEM_FOLDER, Trees

    releases = releases_folder(folder)
    if releases == SYSTEM_FOLDER and not releases.is_dir():
        # Made here it would be root's, and the agent could not use it.
        raise click.ClickException(f"there is no folder {releases} (systemd-tmpfiles --create)")
    open_folder(releases)
    return Trees(releases, Signers(signers_folder(folder)))
