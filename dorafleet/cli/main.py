"""The entry point of the `dorafleet` command, built from the same parts as `dora`."""

import sys
from collections.abc import Sequence
from typing import ClassVar, NoReturn

import click

from dorad import __version__
from dorad.commandline.groups import CommandEntry, LazyGroup
from dorad.commandline.outcome import run_group
from dorad.commandline.streams import open_standard_streams

COMPLETE_VARIABLE = "_DORAFLEET_COMPLETE"
"""The environment variable with which a shell requests completions."""


def _entry(place: str, summary: str) -> CommandEntry:
    """Return the entry of a command at `MODULE:NAME` in this package."""
    return CommandEntry(f"dorafleet.cli.{place}", summary)


COMMANDS: dict[str, CommandEntry] = {
    "console": _entry("console:console", "Open the console; the same as without a command."),
    "robots": _entry("rows:robots", "List robots in brief, the worst first."),
    "top": _entry("top:top", "Show what robots, instances or cells use and carry."),
    "incidents": _entry("incidents:incidents", "List and fetch what robots have uploaded."),
    "alerts": _entry("rows:alerts", "List or acknowledge alerts."),
    "check": _entry("check:check", "Check a cluster file and list problems."),
    "status": _entry("status:status", "Show the state of dorad on every machine."),
    "up": _entry("up:up", "Start the coordinator, enrol the machines and wait for them."),
    "down": _entry("down:down", "Stop all dataflows, then the coordinator."),
    "robot": _entry("robot:robot", "Add a robot to the fleet, or remove one."),
    "labels": _entry("labels:labels", "Show or change a machine's labels."),
    "secret": _entry("secret:secret", "Give secrets to robots, sealed for each of them."),
    "adopt": _entry("conflicts:adopt", "After a restore, keep what machines run."),
    "resume": _entry("conflicts:resume", "After a restore, overrule what machines run."),
    "doctor": _entry("doctor:doctor", "Check the fleet, and suggest how to fix it."),
    "restart": _entry("restart:restart", "Stop a dataflow and start it again."),
    "uninstall": _entry("uninstall:uninstall", "Take machines out of the fleet."),
    "explain": _entry("explain:explain", "Show where nodes would run, and why."),
    "release": _entry("release:release", "Build signed releases, and send them to machines."),
    "deploy": _entry("deploy:deploy", "Run a release or a dataflow file under a name."),
    "history": _entry("deploy:history", "List the deployments, or the revisions of one."),
    "plan": _entry("rolloutstart:plan", "Show what a rollout would change on each robot."),
    "rollout": _entry("rollout:rollout", "Switch robots to a release, step by step, and back."),
    "drift": _entry("drift:drift", "Show where robots differ from their desired state."),
    "exec": _entry("exec:exec_", "Run a command on many machines."),
    "push": _entry("push:push", "Copy a file to many machines."),
    "serve": _entry("serve:serve", "Run the coordinator in the foreground."),
    "audit": _entry("audit:audit", "Show, verify or acknowledge the audit."),
    "takeover": _entry("takeover:takeover", "Let robots obey a coordinator that was restored."),
    "backup": _entry("backup:backup", "Back up the coordinator's store."),
    "restore": _entry("backup:restore", "Restore a backup."),
    "install": _entry("install:install", "Install the package dorad on machines."),
    "upgrade": _entry("upgrade:upgrade", "Upgrade dorad, a few machines at a time."),
    "enrol": _entry("enrol:enrol", "Enrol machines in the fleet."),
    "provision": _entry("provision:provision", "Set up robots that were installed again."),
    "revoke": _entry("access:revoke", "Revoke a robot, an operator or a token."),
    "access": _entry("access:access", "List who may connect."),
    "operator": _entry("access:operator", "Create certificates for operators."),
    "authority": _entry("authority:authority", "Show or hand over the fleet's authority."),
    "token": _entry("access:token", "Create tokens for programs."),
    "router": _entry("router:router", "Print the configuration of the fleet's Zenoh router."),
    "completion": _entry("completion:completion", "Print a shell's completion script."),
}


OF_DORA = ("start", "stop", "list", "logs", "node", "topic", "param", "graph", "clean")
"""Commands of `dora`, which has them for one robot and for a fleet."""


class Cli(LazyGroup):
    """All commands."""

    table: ClassVar[dict[str, CommandEntry]] = COMMANDS

    def unknown(self, name: str, names: list[str]) -> str:
        """Return the error message for an unknown command; it names a command of `dora`."""
        if name not in OF_DORA:
            text = super().unknown(name, names)
            if "did you mean" in text:
                return text
            return f"{text}; `dorafleet console {name}` opens the console of a robot of that name"
        return (
            f"`dora {name}` is the command, also for a fleet: with "
            "`--coordinator-addr 127.0.0.1`, or DORA_COORDINATOR_ADDR"
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; without a command they are those of the console."""
        if not ctx.resilient_parsing and is_console(args):
            args = ["console", *args]
        return super().parse_args(ctx, args)


def is_console(words: Sequence[str]) -> bool:
    """Return True if a command line without the word `console` means it: it begins with options.

    A word is always a command, so that a misspelt one starts nothing.
    """
    return not words or (
        words[0].startswith("-") and words[0] not in ("-h", "--help", "-V", "--version")
    )


EPILOG = """\b
Examples:
  dorafleet                    the console: all robots, logs, graphs, actions
  dorafleet install cluster.yml dorad_0.1.0_arm64.deb
  dorafleet up cluster.yml
  dorafleet status --watch
  dorafleet down

`dorafleet COMMAND --help` explains one command and gives examples.
"""


@click.group(
    cls=Cli,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="dorafleet %(version)s")
def cli() -> None:
    """Manage many robots that run dorad, over SSH, from one machine."""


def run_command(arguments: Sequence[str]) -> int:
    """Run one `dorafleet` command line and return its exit code: 0, 1, 2, or 130 for Ctrl-C."""
    return run_group(cli, arguments, "dorafleet", COMPLETE_VARIABLE, _missing)


def _missing(error: ImportError) -> str | None:
    """Return the message for a missing Python package of dorafleet, None for other modules."""
    if error.name in ("asyncssh", "backports", "packaging", "pathspec", "textual"):
        return f"the Python package {error.name} is missing (pip install 'dorad[fleet]')"
    return None


def main() -> NoReturn:
    """Run the `dorafleet` command with the arguments of this process."""
    open_standard_streams()
    sys.exit(run_command(sys.argv[1:]))
