"""The table of commands, and their overview for `dora --help`. Imports no click, to answer fast."""

from dorad.commandline.page import CommandEntry, help_page, terminal_width

COMPLETE_VARIABLE = "_DORA_COMPLETE"
"""The environment variable by which a shell requests completions."""

COMMANDS: dict[str, CommandEntry] = {
    "run": CommandEntry("dorad.cli.run:run", "Run a dataflow on this machine and show its logs."),
    "up": CommandEntry("dorad.cli.up:up", "Start the daemon in the background.", server=True),
    "down": CommandEntry("dorad.cli.up:down", "Stop the daemon.", server=True),
    "start": CommandEntry(
        "dorad.cli.start:start", "Start a dataflow under the daemon.", server=True
    ),
    "stop": CommandEntry(
        "dorad.cli.stop:stop", "Stop a dataflow and wait until it has ended.", server=True
    ),
    "restart": CommandEntry(
        "dorad.cli.stop:restart", "Stop a dataflow and start it again.", server=True
    ),
    "enable": CommandEntry(
        "dorad.cli.enable:enable", "Start a dataflow at every boot.", server=True
    ),
    "disable": CommandEntry(
        "dorad.cli.enable:disable", "Stop starting a dataflow at boot.", server=True
    ),
    "list": CommandEntry(
        "dorad.cli.list:list_dataflows", "List running and ended dataflows.", server=True
    ),
    "logs": CommandEntry(
        "dorad.cli.logs:logs", "Show and follow the output of nodes.", server=True
    ),
    "clean": CommandEntry(
        "dorad.cli.list:clean", "Remove ended dataflows from the list.", server=True
    ),
    "status": CommandEntry("dorad.cli.status:status", "Show whether the daemon runs.", server=True),
    "doctor": CommandEntry(
        "dorad.cli.doctor:doctor", "Check this machine, the daemon and its nodes.", server=True
    ),
    "top": CommandEntry("dorad.cli.top:top", "Watch resource use and message rates.", server=True),
    "node": CommandEntry(
        "dorad.cli.node:node", "Inspect and change the nodes of a running dataflow.", server=True
    ),
    "topic": CommandEntry(
        "dorad.cli.topic:topic", "Show, measure and send messages of outputs.", server=True
    ),
    "trace": CommandEntry(
        "dorad.cli.trace:trace", "Show why a message was late: where its time went.", server=True
    ),
    "view": CommandEntry(
        "dorad.cli.view:view", "Show messages and logs in Foxglove or rerun.", server=True
    ),
    "param": CommandEntry(
        "dorad.cli.param:param", "Read and set parameters of running nodes.", server=True
    ),
    "busy": CommandEntry("dorad.cli.busy:busy", "Delay switches to new releases.", server=True),
    "cluster": CommandEntry(
        "dorad.cli.cluster:cluster",
        "Manage the machines of a fleet, as `dorafleet` does.",
        server=True,
    ),
    "record": CommandEntry("dorad.cli.record:record", "Record messages; inspect recordings."),
    "replay": CommandEntry("dorad.cli.replay:replay", "Send the messages of a recording again."),
    "diff": CommandEntry("dorad.cli.diff:diff", "Compare the messages of two recordings."),
    "build": CommandEntry("dorad.cli.build:build", "Run the build commands of a dataflow's nodes."),
    "validate": CommandEntry(
        "dorad.cli.validate:validate", "Check a dataflow file and list its problems.", server=True
    ),
    "types": CommandEntry(
        "dorad.cli.types:types", "List data types, and generate a Python module."
    ),
    "graph": CommandEntry(
        "dorad.cli.graph:graph", "Draw a dataflow as an HTML page or as Mermaid.", server=True
    ),
    "expand": CommandEntry(
        "dorad.cli.expand:expand", "Print a dataflow with modules and env expanded."
    ),
    "new": CommandEntry("dorad.cli.new:new", "Create a dataflow or a node, with tests."),
    "cflags": CommandEntry(
        "dorad.cli.cflags:cflags", "Print compiler flags for nodes in C and C++."
    ),
    "completion": CommandEntry(
        "dorad.cli.completion:completion", "Print the completion script for a shell."
    ),
    "ps": CommandEntry(
        "dorad.cli.list:list_dataflows", "`ps` is `list`.", server=True, hidden=True
    ),
    "check": CommandEntry(
        "dorad.cli.status:status", "`check` is `status`.", server=True, hidden=True
    ),
    "destroy": CommandEntry("dorad.cli.up:down", "`destroy` is `down`.", server=True, hidden=True),
    "system": CommandEntry(
        "dorad.cli.status:system", "`system status` is `status`.", server=True, hidden=True
    ),
    "inspect": CommandEntry(
        "dorad.cli.top:inspect", "`inspect top` is `top`.", server=True, hidden=True
    ),
}

MOVED_COMMANDS = {
    "coordinator": "is `dorafleet serve` here, for a fleet; one machine needs only `dora up`",
    "daemon": "is `dorad` here; `dora up` starts one in the background",
    "self": "does not exist: update and uninstall with pip or apt, whichever installed dora",
    "hub": "is not available yet",
}
"""What to use instead of commands of dora 1.x that do not exist here."""

ABOUT = "Build and run dataflows: processes that exchange Arrow data through shared memory."

EPILOG = """\b
Examples:
  dora new hello && cd hello && dora run dataflow.yml
  dora validate dataflow.yml
  dora graph dataflow.yml --open

`dora COMMAND --help` explains one command and gives examples.
"""


def page() -> str:
    """Return the overview of all commands, laid out for this terminal."""
    return help_page("dora", ABOUT, COMMANDS, EPILOG, terminal_width())
