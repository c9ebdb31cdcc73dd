"""Enrol one robot over SSH: its key never leaves it, and its host key is why it is trusted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from dorad.agent.identity import address_of
from dorad.control.errors import ControlError
from dorafleet.robot import commands
from dorafleet.robot.facts import NOT_FOUND, check_sudo, decode, user_id
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dorad.control.messages.agent import Certificates
    from dorafleet.ssh.connection import CommandResult, Connection

CONNECT_TIMEOUT_S = 30.0
"""How long the agent may take to connect after it was started."""
POLL_INTERVAL_S = 0.5

Known = Literal["never", "enrolled", "revoked"]
"""What the coordinator knows of a robot."""


What = Literal["nothing", "enrol", "replace", "move"]
"""What is done with a robot."""


class RobotIdentity(msgspec.Struct, frozen=True):
    """What an agent has in its file `agent.json`."""

    robot: str
    coordinators: list[str]


class _Request(msgspec.Struct, frozen=True):
    robot: str
    csr: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The result of an enrolment."""

    what: What
    coordinators: Sequence[str] = ()
    """The addresses that the robot got."""

    @property
    def changed(self) -> bool:
        """Whether something was changed on the robot."""
        return self.what != "nothing"

    def __str__(self) -> str:
        if self.what == "move":
            return f"moved to {', '.join(self.coordinators)}, connected"
        if self.changed:
            return "enrolled, connected"
        return "is enrolled already, connected: nothing to do"


def decide(
    robot: str,
    identity: RobotIdentity | None,
    known: Known,
    coordinators: Sequence[str],
    *,
    again: bool,
    exact: bool,
) -> What:
    """Return what to do with a robot that has this identity.

    It moves if it lacks an address in `coordinators`; if `exact`, also if it has others.

    Raises:
        SshError: the robot has an identity that only `again` may replace.
    """
    if identity is None:
        return "enrol"
    if again or (identity.robot == robot and known == "revoked"):
        return "replace"
    if identity.robot != robot:
        message = f"it is enrolled as `{identity.robot[:200]}`"
        raise SshError(Code.REFUSED, message, "is the host in the file right? else use `--again`")
    if known == "never":
        message = f"it is enrolled by another coordinator: {', '.join(identity.coordinators)[:200]}"
        raise SshError(Code.REFUSED, message, "`--again` moves it to this one")
    has, wanted = _addresses(identity.coordinators), _addresses(coordinators)
    if not set(wanted) <= set(has) or (exact and has != wanted):
        return "move"
    return "nothing"


def _addresses(texts: Sequence[str]) -> list[tuple[str, int] | str]:
    """Return hosts with their ports; what is not an address, as the robot may say, as it is."""
    addresses: list[tuple[str, int] | str] = []
    for text in texts:
        try:
            addresses.append(address_of(text))
        except ControlError:
            addresses.append(text)
    return addresses


class Enrolment:
    """The enrolment of one robot. `on_step` gets the name of each step before it starts."""

    def __init__(
        self,
        connection: Connection,
        robot: str,
        *,
        known: Known,
        sign: Callable[[str, bool], Awaitable[Certificates]],
        is_connected: Callable[[], Awaitable[bool]],
        coordinators: Sequence[str],
        on_step: Callable[[str], object],
        again: bool = False,
        exact: bool = False,
        lost: bool = False,
    ) -> None:
        """`known` is what the coordinator knows of the robot; `sign` asks it for a certificate.

        `is_connected` returns whether the coordinator is connected to the robot; `coordinators`
        are the addresses that the robot gets: if `exact`, also one that has others beside them.
        `again` replaces the identity that it has; with `lost`, one that has lost its identity gets
        another one, although it was enrolled.
        """
        self._connection = connection
        self._robot = robot
        self._known = known
        self._sign = sign
        self._is_connected = is_connected
        self._coordinators = coordinators
        self._on_step = on_step
        self._again = again
        self._exact = exact
        self._lost = lost
        self._uid = 0

    async def run(self) -> Enrolled:
        """Enrol the robot, and wait until its agent is connected.

        Raises:
            SshError: a step has failed on the robot, or it must not be enrolled.
            ControlError: the coordinator refuses to sign, or cannot be reached.
        """
        self._uid = user_id(await self._connection.check(commands.USER_ID))
        if self._uid:
            await check_sudo(self._connection)
        identity = await self._read_identity()
        what = decide(
            self._robot,
            identity,
            self._known,
            self._coordinators,
            again=self._again,
            exact=self._exact,
        )
        if what == "move":
            await self._move()
        elif what != "nothing":
            await self._enrol(
                replace=what == "replace",
                again=self._again
                or (self._lost and identity is None and self._known == "enrolled"),
            )
        self._on_step("starting the agent")
        await self._check(commands.ENABLE_AGENT, "the agent does not start")
        self._on_step("waiting until it connects")
        await self._wait_connected()
        return Enrolled(what, self._coordinators)

    async def _move(self) -> None:
        self._on_step(f"telling it the coordinator's address: {', '.join(self._coordinators)}")
        done = await self._run(commands.agent_move(self._coordinators))
        if done.code:
            message = f"its agent keeps the old address: {done.last_line.removeprefix('error: ')}"
            hint = "upgrade dorad there; or `--again` replaces its identity"
            raise SshError(Code.FAILED, message, hint)

    async def _enrol(self, *, replace: bool, again: bool) -> None:
        self._on_step("making a key")
        command = commands.agent("enrol", self._robot, replace=replace)
        printed = await self._check(command, "no key was made")
        try:
            request = decode(printed, _Request)
        except ValueError:
            raise SshError(Code.FAILED, f"`dorad-agent enrol` prints: {printed[:200]}") from None
        self._on_step("signing its certificate")
        certificates = await self._sign(request.csr, again)
        answer = {
            "robot": self._robot,
            "coordinators": list(self._coordinators),
            "chain": certificates.chain,
            "authority": certificates.authority,
        }
        self._on_step("storing its certificate")
        command = commands.agent("certify", replace=replace)
        given = msgspec.json.encode(answer)
        await self._check(command, "the certificate was not stored", given=given)

    async def _read_identity(self) -> RobotIdentity | None:
        done = await self._run(commands.AGENT_IDENTITY)
        if done.code:
            return None
        try:
            return decode(done.stdout, RobotIdentity)
        except ValueError:
            if self._again:
                return RobotIdentity("", [])
            path = commands.AGENT_IDENTITY[-1]
            raise SshError(Code.REFUSED, f"{path} is damaged", "`--again` replaces it") from None

    async def _wait_connected(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                while True:
                    if await self._is_connected():
                        return
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            status = await self._run((*commands.ENGLISH, "dorad-agent", "status"))
            where = " or ".join(self._coordinators)
            message = f"its agent has not connected to {where} within {CONNECT_TIMEOUT_S:g} s"
            raise SshError(
                Code.FAILED,
                f"{message}: {status.last_line}",
                "can the robot reach that address? `--coordinator` names another one; there: "
                "journalctl -u dorad-agent",
            ) from None

    async def _check(self, command: Sequence[str], problem: str, given: bytes | None = None) -> str:
        """Run a command as root and return what it printed. Raises SshError if it fails."""
        done = await self._run(command, given)
        if done.code == NOT_FOUND:
            message = "dorad-agent is not installed there"
            raise SshError(Code.REFUSED, message, "`dorafleet install` installs the package dorad")
        if done.code:
            reason = done.last_line.removeprefix("error: ")
            raise SshError(Code.FAILED, f"{problem}: {reason}")
        return done.stdout

    async def _run(self, command: Sequence[str], given: bytes | None = None) -> CommandResult:
        return await self._connection.run(commands.as_root(command, self._uid), given=given)


def as_ssh_error(error: ControlError) -> SshError:
    """Return the error of the coordinator as the outcome of one robot."""
    return SshError(Code.REFUSED, error.message, error.hint)
