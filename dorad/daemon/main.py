"""The `dorad` program: the daemon in the foreground, its own log on stderr."""

import asyncio
import gc
import os
from pathlib import Path
from typing import NoReturn

import click

from dorad.daemon.paths import DaemonPaths, system_paths, user_paths
from dorad.problems import ProblemError
from dorad.program import log_level, run_program
from dorad.shm.rendezvous import MAX_DIR_BYTES
from dorad.version import version_option

EPILOG = """\b
Examples:
  dora up                        start this user's daemon in the background
  dorad                          the same in the foreground
  dorad --system --group dorad   the machine's daemon, under /run/dorad and /var/lib/dorad

\b
SIGTERM and SIGINT stop all dataflows and then the daemon; a second signal kills the nodes at once.
After SIGKILL the nodes keep running, and the next dorad adopts them. Under systemd, nodes keep
running after every signal, except at shutdown. SIGHUP reloads the configuration.
"""


@click.command(
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--system", is_flag=True, help="Run as the daemon of the machine.")
@click.option(
    "--runtime-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the sockets.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the state.",
)
@click.option("--group", metavar="NAME", help="Group whose members may use the control socket.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file; default with --system: /etc/dorad/dorad.toml.",
)
@click.option("--rt", is_flag=True, help="Run in real time: at high priority, with memory locked.")
@click.option("-v", "--verbose", is_flag=True, help="Log every decision (DORAD_LOG_LEVEL=debug).")
@version_option("dorad")
def command(
    *,
    system: bool,
    runtime_dir: Path | None,
    state_dir: Path | None,
    group: str | None,
    config: Path | None,
    rt: bool,
    verbose: bool,
) -> int:
    """Supervise dataflows in the background of this machine."""
    from dorad import ownlog
    from dorad.control.agentsettings import SYSTEM_FILE
    from dorad.daemon.service import Service
    from dorad.heap import collect_rarely

    level = log_level(verbose=verbose)
    ownlog.setup(level or "info")
    if config is not None:
        config = config.absolute()
    try:
        chosen = system_paths() if system else user_paths()
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    runtime = chosen.runtime if runtime_dir is None else runtime_dir.absolute()
    if (size := len(os.fsencode(runtime))) > MAX_DIR_BYTES:
        raise click.BadParameter(
            f"{runtime} has {size} bytes: sockets of dataflows need a path of at most "
            f"{MAX_DIR_BYTES}; choose a shorter one",
            param_hint="--runtime-dir",
        )
    try:
        paths = DaemonPaths(
            runtime,
            chosen.state if state_dir is None else state_dir.absolute(),
            chosen.logs if state_dir is None or chosen.logs is None else state_dir.absolute(),
        )
        service = Service(
            paths,
            system=system,
            group=group,
            config=config or (SYSTEM_FILE if system else None),
            realtime=rt,
            log_level=level,
        )
        # Modules stay until the end: no collection of garbage has to look through them.
        gc.freeze()
        collect_rarely()  # hop records are tuples by the thousand, too
        gc.enable()
        # Do not depend on the current folder, and do not keep its file system busy.
        os.chdir("/")
        return asyncio.run(service.run())
    except (OSError, ProblemError) as error:
        raise click.ClickException(str(error)) from error


def main() -> NoReturn:
    """Run `dorad` with the arguments of this process."""
    gc.disable()  # until `command` has imported its modules, which make no garbage
    run_program(command, "dorad")


if __name__ == "__main__":
    main()
