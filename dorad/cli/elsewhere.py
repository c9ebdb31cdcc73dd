"""Commands of dora 1.x that are not here: what takes their place, or that nothing does yet."""

_NOT_YET = "is not there yet"

HINTS = {
    "coordinator": "is not needed: `dora up` starts the daemon, which is all there is",
    "daemon": "is `dorad` here; `dora up` starts one in the background",
    "self": "is not there: update and uninstall with what installed it, such as pip or apt",
    "cluster": "is `dorafleet` here, a program of its own; it has `check`, `install` and `status`",
    "hub": _NOT_YET,
    "record": _NOT_YET,
    "replay": _NOT_YET,
    "trace": _NOT_YET,
}
"""What is said of a command that is not in the table of commands."""
