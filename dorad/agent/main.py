"""The `dorad-agent` program: the service, and commands that enrol a robot in a fleet."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from dorad.agent.releasecommand import release
from dorad.program import log_level, run_program
from dorad.version import version_option

if TYPE_CHECKING:
    from dorad.agent.identitystore import IdentityStore
    from dorad.agent.model import AgentStatus
    from dorad.control.messages.releases import ReleaseState

STDIN = "-"
"""Instead of a file: standard input."""

MAX_TOKEN_INPUT = 4096
"""Bytes that are read of a token and what surrounds it."""

MAX_INPUT = 1 << 20
"""Bytes that `certify` reads."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

EPILOG = """\b
Examples:
  dorad-agent                  follow the coordinator of this robot's fleet
  dorad-agent status           show whether it is connected, and what runs here
  dorad-agent join 192.0.2.1 --robot arm1 --authority BASE64
                               enrol this robot; `dorafleet enrol --token` prints the command

\b
Usually `dorafleet enrol` enrols a robot over SSH: it runs `enrol` and `certify` there.
SIGTERM ends the agent. Dataflows keep running, with or without it.
"""


@click.group(invoke_without_command=True, epilog=EPILOG, context_settings=CONTEXT)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the identity and the shares; default: /var/lib/dorad-agent if it exists, "
    "else ~/.local/state/dorad-agent.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every decision (DORAD_LOG_LEVEL=debug).")
@version_option("dorad-agent")
@click.pass_context
def command(context: click.Context, *, state_dir: Path | None, verbose: bool) -> int | None:
    """Run this robot's share of a fleet, as its coordinator orders."""
    from dorad import ownlog
    from dorad.agent.folder import default_folder

    level = log_level(verbose=verbose)
    serves = context.invoked_subcommand in (None, "run")
    ownlog.setup(level or ("info" if serves else "warning"))
    context.obj = default_folder() if state_dir is None else state_dir.absolute()
    if context.invoked_subcommand is not None:
        return None
    code: int = context.invoke(run)
    return code


@command.command(context_settings=CONTEXT)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="DORA_SOCKET",
    help="Control socket of dorad; default: that of the machine's dorad with the default folder "
    "/var/lib/dorad-agent, else that of this user's.",
)
@click.pass_obj
def run(folder: Path, *, socket: Path | None = None) -> int:
    """Run the service; the default."""
    import asyncio

    from dorad.agent.folder import daemon_socket, open_folder
    from dorad.agent.service import Service

    open_folder(folder)
    service = Service(folder, daemon_socket(folder) if socket is None else socket.absolute())
    # Do not keep the file system of the current folder busy.
    os.chdir("/")
    return asyncio.run(service.run())


@command.command(
    context_settings=CONTEXT,
    epilog="""\b
Example:
  ssh arm1 sudo dorad-agent enrol arm1 > csr.json
""",
)
@click.argument("robot")
@click.option("--replace", is_flag=True, help="Also if this robot is enrolled already.")
@click.pass_obj
def enrol(folder: Path, *, robot: str, replace: bool) -> None:
    """Make a key; print a request for a certificate as JSON: {"robot": …, "csr": …}."""
    csr = _identities(folder).request(robot, replace=replace)
    _print_json({"robot": robot, "csr": csr})


@command.command(
    context_settings=CONTEXT,
    epilog="""\b
Example:
  ssh arm1 sudo dorad-agent certify < answer.json
""",
)
@click.option("--replace", is_flag=True, help="Also if this robot is enrolled already.")
@click.pass_obj
def certify(folder: Path, *, replace: bool) -> None:
    """Store the answer to `enrol`, JSON on stdin: {robot, coordinators, chain, authority}."""
    import msgspec

    from dorad.agent.identity import Enrolment

    content = sys.stdin.buffer.read(MAX_INPUT + 1)
    if len(content) > MAX_INPUT:
        raise click.ClickException(f"the answer has more than {MAX_INPUT} bytes")
    try:
        enrolment = msgspec.json.decode(content, type=Enrolment)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise click.ClickException(f"this is not the answer to a request: {error}") from error
    identity = _identities(folder).enrol(enrolment, replace=replace)
    click.echo(f"this robot is {identity.robot}", err=True)


def _refuse_argument(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a token on the command line, which every user of this machine can read."""
    if value in (None, STDIN):
        return value
    raise click.BadParameter(
        "a token on the command line can be read by every user of this machine, so it is not "
        "used. Leave the option out: the command asks for the token, or reads it from standard "
        "input or from `--token-file`. Make a new token: `dorafleet enrol CLUSTER.yml ROBOT "
        "--token`",
        ctx,
        param,
    )


@command.command(
    context_settings=CONTEXT,
    epilog="""\b
Examples:
  dorad-agent join 192.0.2.1 --robot arm1 --authority BASE64            asks for the token
  dorad-agent join 192.0.2.1 --robot arm1 --authority BASE64 --token-file arm1.token
\b
The token is not an argument, because every user of this machine can read arguments. Without
--token-file it is asked for at a terminal, and read from standard input elsewhere.
""",
)
@click.argument("coordinators", nargs=-1, required=True, metavar="COORDINATOR...")
@click.option("--robot", required=True, help="Id of this robot in the cluster file.")
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File with the token, good for one enrolment; `-` reads it from standard input.",
)
@click.option("--token", "argument", metavar="-", callback=_refuse_argument, hidden=True)
@click.option("--authority", required=True, help="Certificate of the fleet's authority in base64.")
@click.option("--replace", is_flag=True, help="Also if it is enrolled already, under this id.")
@click.pass_obj
def join(
    folder: Path,
    *,
    coordinators: tuple[str, ...],
    robot: str,
    token_file: Path | None,
    argument: str | None,
    authority: str,
    replace: bool,
) -> None:
    """Enrol this robot with a token; `dorafleet enrol --token` prints this command and a token."""
    from dorad.agent import join as joining

    pem = joining.authority_of(authority)
    token = _read_token(Path(STDIN) if argument else token_file)
    identities = _identities(folder)
    identity = joining.join(identities, robot, coordinators, token, pem, replace=replace)
    click.echo(
        f"this robot is {identity.robot}; `systemctl enable --now dorad-agent` starts the agent",
        err=True,
    )


def _read_token(file: Path | None) -> str:
    """Return the token of an enrolment: from a file, standard input or a prompt.

    Raises:
        ControlError: the file cannot be read, or others can read it, too.
    """
    from dorad.boundedfile import read_bounded
    from dorad.control.errors import ControlError

    if file is not None and str(file) != STDIN:
        try:
            # A pipe of the shell belongs to this command alone.
            token = read_bounded(file, MAX_TOKEN_INPUT, pipes=True)
            mode = file.stat().st_mode
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ControlError("refused", f"{file} cannot be read: {why}") from None
        if stat.S_ISREG(mode) and mode & 0o077:
            raise ControlError(
                "refused",
                f"others may read the token in {file}: its mode is {mode & 0o777:04o}",
                "make a new token, in a file of mode 0600",
            )
        return token.decode("ascii", "replace").strip()
    if file is None and sys.stdin.isatty():
        typed: str = click.prompt("Token", hide_input=True, err=True)
        return typed.strip()
    return sys.stdin.buffer.readline(MAX_TOKEN_INPUT).decode("ascii", "replace").strip()


@command.command(
    context_settings=CONTEXT,
    epilog="""\b
Examples:
  dorad-agent status
  dorad-agent status --json | jq .connection.state
""",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(folder: Path, *, as_json: bool) -> int:
    """Show the state of the running agent; exit with 1 if it is not connected."""
    import msgspec

    from dorad.agent.status import read_status

    status = read_status(folder)
    if as_json:
        _print_json(msgspec.to_builtins(status))
    else:
        for line in _lines(status):
            click.echo(line)
    return 0 if status.connection.state == "connected" else 1


@command.command(
    context_settings=CONTEXT,
    epilog="""\b
Example:
  dorad-agent move 192.0.2.1 192.0.2.2
\b
The agent connects to the new addresses at once. Its key and certificate stay: the coordinators
belong to the same fleet.
""",
)
@click.argument("coordinators", nargs=-1, required=True, metavar="COORDINATOR...")
@click.pass_obj
def move(folder: Path, *, coordinators: tuple[str, ...]) -> None:
    """Set other addresses of the fleet's coordinators, after the server has moved."""
    identity = _identities(folder).move(list(coordinators))
    click.echo(f"this robot is {identity.robot}; it obeys {', '.join(coordinators)}", err=True)


@command.command(context_settings=CONTEXT)
@click.option("--force", is_flag=True, help="Also if dataflows of the fleet run here.")
@click.pass_obj
def leave(folder: Path, *, force: bool) -> None:
    """Leave the fleet: forget identity, key and orders. Dataflows that run are not stopped."""
    import msgspec

    from dorad.agent.store import AssignmentStore

    identities = _identities(folder)
    identities.load()
    store = AssignmentStore(folder / "shares.db")
    try:
        running = [name for name, record in store.runs.items() if record.ended is None]
        if running and not force:
            raise click.ClickException(
                f"dataflows of the fleet run here: {', '.join(running)}; stop them there, "
                "or use --force"
            )
        identities.remove()
        for name in list(store.assignments):
            store.remove(name)
        # Who joins a fleet again obeys its coordinators from their first term on; the head of the
        # audit stays known.
        store.remember(msgspec.structs.replace(store.memory, fleet="", epoch=0, term=""))
    finally:
        store.close()
    click.echo("this robot is in no fleet now", err=True)


command.add_command(release)


def _identities(folder: Path) -> IdentityStore:
    from dorad.agent.folder import open_folder
    from dorad.agent.identitystore import IdentityStore

    open_folder(folder)
    return IdentityStore(folder)


def _lines(status: AgentStatus) -> list[str]:
    from dorad.terminal import visible

    lines = [status.line]
    for share in status.shares:
        links = [f"{name} {link.state}" for name, link in share.links.items()]
        rest = "; ".join(filter(None, [share.reason, ", ".join(links)]))
        lines.append(f"  {share.dataflow}: {share.status}" + (rest and f" ({rest})"))
    lines += [_release_line(release) for release in status.releases]
    return [visible(line) for line in lines]


def _release_line(release: ReleaseState) -> str:
    waits = release.waiting and f"waits: {release.waiting}"
    what = ", ".join(filter(None, [release.phase, "refused" if release.refused else "", waits]))
    ids = {"ordered": release.release, "runs": release.running, "confirmed": release.confirmed}
    where = ", ".join(f"{word} {id_[:12]}" for word, id_ in ids.items() if id_)
    rest = "; ".join(filter(None, [where, release.reason]))
    return f"  {release.dataflow}: {what}" + (rest and f" ({rest})")


def _print_json(content: object) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(content)).decode())


def main() -> NoReturn:
    """Run `dorad-agent` with the arguments of this process."""
    run_program(command, "dorad-agent")


if __name__ == "__main__":
    main()
