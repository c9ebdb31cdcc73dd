"""`dorafleet release`: build, show, verify and compare signed releases."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from dorad.commandline.groups import CommandEntry, LazyGroup
from dorad.commandline.tables import plain, print_lines, print_object, print_table
from dorad.phrases import size_text
from dorad.terminal import visible
from dorafleet.cli.arguments import File, accept_new_option, json_option
from dorafleet.cli.releaseoptions import open_store, release_argument, store_option
from dorafleet.cli.releaseview import (
    changes_of,
    date_of,
    difference,
    file_count,
    lines_of,
    size_of,
    some,
    summary,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.release.manifest import Target
    from dorafleet.release.build import Built
    from dorafleet.release.store import Store

EPILOG = """\b
Examples:
  dorafleet release build arm/dataflow.yml --python-lock arm/pylock.toml --for cluster.yml
  dorafleet release trust cluster.yml
  dorafleet release push arm cluster.yml
  dorafleet release diff arm@3 arm@4
\b
RELEASE is the first characters of an id, `arm` for the newest release of the dataflow `arm`, or
`arm@3` for one with this sequence.
"""

COMMANDS: dict[str, CommandEntry] = {
    "build": CommandEntry("dorafleet.cli.release:build", "Build and sign a release."),
    "list": CommandEntry("dorafleet.cli.release:list_", "List the releases on this machine."),
    "show": CommandEntry("dorafleet.cli.release:show", "Show what is in a release."),
    "verify": CommandEntry(
        "dorafleet.cli.release:verify", "Check the signature and all files of a release."
    ),
    "diff": CommandEntry("dorafleet.cli.release:diff", "Compare two releases."),
    "push": CommandEntry(
        "dorafleet.cli.releasepush:push", "Send a release to machines, without running it."
    ),
    "upload": CommandEntry(
        "dorafleet.cli.releaseupload:upload",
        "Leave a release with the coordinator, which sends it to robots.",
    ),
    "stored": CommandEntry(
        "dorafleet.cli.releaseupload:stored",
        "List the releases whose files the coordinator keeps.",
    ),
    "trust": CommandEntry(
        "dorafleet.cli.releasetrust:trust", "Let machines accept the releases of a signing key."
    ),
}


class Release(LazyGroup):
    """All commands of `dorafleet release`."""

    table: ClassVar[dict[str, CommandEntry]] = COMMANDS


@click.group(cls=Release, epilog=EPILOG)
def release() -> None:
    """Build signed releases of dataflows, and send them to machines."""


BUILD_EPILOG = """\b
Examples:
  dorafleet release build arm/dataflow.yml
  dorafleet release build arm.yml --python-lock pylock.toml --target aarch64:3.13
  dorafleet release build arm.yml --python-lock pylock.toml --for cluster.yml
\b
The release has every file below the folder of DATAFLOW, except hidden files, byte code, virtual
environments, `out`, `build`, `recordings`, and the files in `.releaseignore` (in the format of
.gitignore).
The lock is a pylock.toml, or requirements with hashes. The release has its wheels for each target;
the default target is this machine. Robots need no pip, no network and no compiler.
A key of the SSH agent signs the release, and --store keeps it. Without changes since the newest
release, the command prints that one.
"""

LIST_EPILOG = """\b
Examples:
  dorafleet release list
  dorafleet release list --json | jq -r .release
"""

SHOW_EPILOG = """\b
Examples:
  dorafleet release show arm
  dorafleet release show arm@3 --files
"""

VERIFY_EPILOG = """\b
Examples:
  dorafleet release verify arm
  dorafleet release verify arm@3 --signers /etc/dorad
"""

DIFF_EPILOG = """\b
Examples:
  dorafleet release diff arm@3 arm@4
  dorafleet release diff arm@3 arm --target aarch64:3.13
"""


@click.command(epilog=BUILD_EPILOG)
@click.argument("dataflow", type=File(".yml", ".yaml"))
@click.option("--name", help="Name of the dataflow.  [default: that of the file or its folder]")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder to release.  [default: that of DATAFLOW]",
)
@click.option("--python-lock", type=File(".toml", ".txt"), help="Lock of the nodes' packages.")
@click.option(
    "--target",
    "targets",
    metavar="ARCH[:PYTHON[:GLIBC]]",
    multiple=True,
    help="A kind of machine, such as aarch64:3.13:2.36; may be repeated.",
)
@click.option(
    "--for",
    "cluster",
    type=File(".yml", ".yaml"),
    help="Targets of these machines; they may be off if the coordinator knows them.",
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with wheels to use instead of the package index.",
)
@click.option("--key", help="Key to sign with: a file, a fingerprint, or a comment.")
@click.option("--sequence", type=click.IntRange(1, 2**53 - 1), help="Number of the release.")
@click.option("--min-dorad", metavar="VERSION", help="Oldest dorad that can run it.")
@store_option
@json_option
@accept_new_option
def build(
    dataflow: Path,
    *,
    name: str | None,
    root: Path | None,
    python_lock: Path | None,
    targets: Sequence[str],
    cluster: Path | None,
    wheels: Path | None,
    key: str | None,
    sequence: int | None,
    min_dorad: str | None,
    store: Path | None,
    as_json: bool,
    accept_new: bool,
) -> None:
    """Build a release of the dataflow in the file DATAFLOW, and sign it."""
    from dorafleet.release import build as building
    from dorafleet.release.signingkey import choose

    wanted = [_target(text) for text in targets]
    if min_dorad is not None and not re.fullmatch(r"\d{1,6}(\.\d{1,6}){0,3}", min_dorad):
        raise click.UsageError(f"--min-dorad: {min_dorad!r} is not a version such as 0.2.0")
    chosen = choose(key)
    if cluster is not None:
        from dorafleet.cli.releasepush import ask_targets
        from dorafleet.release.targets import without_covered

        wanted += without_covered(ask_targets(cluster, accept_new=accept_new), wanted)
    options = building.BuildOptions(
        name=name,
        root=root,
        lock=python_lock,
        targets=wanted,
        wheels=wheels,
        sequence=sequence,
        **({} if min_dorad is None else {"min_dorad": min_dorad}),
    )
    releases = open_store(store)
    built = building.build(
        dataflow,
        releases,
        chosen,
        options,
        lambda step: click.echo(click.style(f"{step} …", dim=True), err=True),
    )
    if as_json:
        print_object(summary(built.bundle) | {"new": built.new, "notes": built.notes})
        return
    _print_built(built, releases)


DEFAULT_GLIBC = "2.28"
"""What most wheels need; Debian 10, Ubuntu 20.04 and newer systems have it."""


def _target(text: str, default_glibc: str = DEFAULT_GLIBC) -> Target:
    """Return the target in the value of `--target`."""
    import msgspec

    from dorad.release.manifest import Target

    arch, _, rest = text.partition(":")
    python, _, glibc = rest.partition(":")
    names = {"amd64": "x86_64", "arm64": "aarch64"}
    try:
        return msgspec.convert(
            {
                "arch": names.get(arch, arch),
                "python": python,
                "glibc": glibc or (default_glibc if python else ""),
            },
            Target,
        )
    except msgspec.ValidationError:
        message = f"--target: {text!r} is not one such as aarch64:3.13 or aarch64:3.13:2.36"
        raise click.UsageError(message) from None


def _print_built(built: Built, store: Store) -> None:
    for note in built.notes:
        click.echo(f"note: {visible(note)}", err=True)
    if built.ignored:
        click.echo(f"note: .releaseignore leaves out {some(built.ignored)}", err=True)
    if built.shared:
        click.echo(
            f"note: a change of these files replaces all nodes: {some(built.shared)}; no node "
            "names or imports them (.releaseignore can leave them out)",
            err=True,
        )
    bundle = built.bundle
    if not built.new:
        click.echo(f"{bundle}: nothing has changed since {date_of(bundle)}")
        return
    for line in lines_of(bundle):
        click.echo(visible(line))
    if built.before is not None:
        for line in difference(built.before, bundle):
            click.echo(visible(line))


@click.command("list", epilog=LIST_EPILOG)
@store_option
@json_option
def list_(*, store: Path | None, as_json: bool) -> None:
    """List the releases on this machine."""
    bundles = open_store(store).all()
    if as_json:
        print_lines(summary(bundle) for bundle in bundles)
        return
    print_table(
        ("Release", "Name", "Sequence", "Created", "Files", "Size", "Targets"),
        [
            (
                bundle.short,
                bundle.manifest.name,
                str(bundle.manifest.sequence),
                date_of(bundle),
                str(file_count(bundle)),
                size_text(size_of(bundle)),
                "; ".join(map(str, bundle.manifest.targets)) or "any",
            )
            for bundle in bundles
        ],
    )


@click.command(epilog=SHOW_EPILOG)
@release_argument("release")
@click.option("--files", is_flag=True, help="List the files and the packages, too.")
@store_option
@json_option
def show(release: str, *, files: bool, store: Path | None, as_json: bool) -> None:
    """Show what is in RELEASE, and who has signed it."""
    from dorad.release.signature import signing_key

    bundle = open_store(store).find(release)
    key = signing_key(bundle.content, bundle.signature).get_fingerprint()
    if as_json:
        manifest = {"manifest": plain(bundle.manifest)} if files else {}
        print_object(summary(bundle) | {"key": key} | manifest)
        return
    for line in (*lines_of(bundle), f"  signed by {key}"):
        click.echo(visible(line))
    if files:
        for file in bundle.manifest.files:
            click.echo(visible(f"  {file.sha256[:12]} {file.size:>12} {file.path}"))
        for package in bundle.manifest.packages:
            size = sum(file.size for file in package.files)
            click.echo(visible(f"  {package.name} {package.version}: {size_text(size)}"))


@click.command(epilog=VERIFY_EPILOG)
@release_argument("release")
@click.option(
    "--signers",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with `allowed_signers` and `revoked_signers`, as robots have it in /etc/dorad.",
)
@store_option
@json_option
def verify(release: str, *, signers: Path | None, store: Path | None, as_json: bool) -> None:
    """Check the signature of RELEASE and the content of every file.

    Without --signers any key will do; it is shown.
    """
    from dorad.release.signature import Signers, signing_key

    releases = open_store(store)
    bundle = releases.find(release)
    key = signing_key(bundle.content, bundle.signature).get_fingerprint()
    signer = key
    if signers is not None:
        signer = str(Signers(signers).verify(bundle.content, bundle.signature, time.time()))
    count = releases.check(bundle)
    if as_json:
        print_object(summary(bundle) | {"signer": signer, "key": key, "files": count})
        return
    click.echo(visible(f"{bundle}: {count} files are right, signed by {signer}"))


@click.command(epilog=DIFF_EPILOG)
@release_argument("old")
@release_argument("new")
@click.option("--target", metavar="ARCH:PYTHON", help="The machine to compare for.")
@store_option
@json_option
def diff(old: str, new: str, *, target: str | None, store: Path | None, as_json: bool) -> None:
    """Show what a machine that runs OLD would change for NEW."""
    releases = open_store(store)
    before, after = releases.find(old), releases.find(new)
    wanted = None if target is None else _target(target, "")
    if as_json:
        changes = changes_of(before, after, wanted)
        print_object({"old": before.id, "new": after.id} | plain(changes))
        return
    click.echo(f"{before} → {after}")
    for line in difference(before, after, wanted):
        click.echo(visible(line))
