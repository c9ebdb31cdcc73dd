"""The methods `secret.…`: list, set and remove the secrets of the fleet."""

import time

from dorad.control.errors import ControlError
from dorad.control.messages import NODE_LIST, NodeList, Ref
from dorad.control.session import Call, handles
from dorad.dataflow.errors import TextError
from dorad.dataflow.secrets import check_secret_name
from dorafleet.coordinator import secretbook as book
from dorafleet.coordinator.reports import MAX_NAME
from dorafleet.coordinator.robotcalls import ask
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.secretbook import Sealed, SecretRecord
from dorafleet.coordinator.secretmessages import (
    SECRET_LIST,
    SECRET_RECIPIENTS,
    SECRET_REMOVE,
    SECRET_SET,
    Secret,
    SecretList,
    SecretQuery,
    SecretRecipients,
    SecretRef,
    SecretSet,
)
from dorafleet.coordinator.secrets import MAX_PARTS, Secrets
from dorafleet.coordinator.writer import Writer, actor_of
from dorafleet.inventory import syntax


class SecretMethods:
    """Answers the methods `secret.…`."""

    def __init__(self, secrets: Secrets, robots: Robots, writer: Writer) -> None:
        self._secrets = secrets
        self._robots = robots
        self._writer = writer

    @handles(SECRET_LIST)
    async def list_all(self, _call: Call, params: SecretQuery) -> SecretList:
        """List secrets, and the nodes that run with earlier values."""
        listed = self._listed(params.name)
        if params.nodes:
            of_robots = [each for secret in listed.secrets for each in secret.robots]
            holders = {each.robot for each in of_robots if each.state != "missing"}
            answers, listed.silent = await ask(self._robots, sorted(holders), NODE_LIST, Ref())
            for secret in listed.secrets:
                for each in secret.robots:
                    if each.robot in answers:
                        each.old_nodes = _old_nodes(answers[each.robot], secret.name)
        return listed

    @handles(SECRET_RECIPIENTS)
    async def recipients(self, _call: Call, params: SecretRef) -> SecretRecipients:
        """Return the robots that a value is to be sealed for."""
        target = self._checked(params.name, params.target)
        version = book.next_version(self._secrets.records, params.name, time.time())
        keys: dict[str, str] = {}
        lacking: dict[str, str] = {}
        others: dict[str, str] = {}
        trial = SecretRecord(params.name, target, version, 0.0, "")
        for robot in self._robots.all:
            recipient = self._secrets.recipient(robot)
            if not book.matches(target, robot.id, recipient.labels):
                continue
            chosen = book.wanted({**self._secrets.records, (params.name, target): trial}, recipient)
            if chosen[params.name] is not trial:
                others[robot.id] = chosen[params.name].target
            if recipient.key:
                keys[robot.id] = recipient.key
            else:
                held = recipient.held
                lacking[robot.id] = (
                    "it has never connected, so its key is not known"
                    if held is None
                    else held.refused.get("", book.OLD_AGENT)[: book.MAX_REASON]
                )
        return SecretRecipients(version=version, keys=keys, lacking=lacking, others=others)

    @handles(SECRET_SET)
    async def set(self, call: Call, params: SecretSet) -> SecretList:
        """Store a sealed value, or a further part of it."""
        place = (params.name, self._checked(params.name, params.target))
        if len(params.sealed) > MAX_PARTS:
            raise ControlError("too-large", f"at most {MAX_PARTS} robots in one message")
        new = {
            robot: Sealed(params.version, params.keys.get(robot, ""), text)
            for robot, text in params.sealed.items()
        }
        for robot in new:
            self._robots.get(robot)
        async with self._writer.changing:
            before = self._secrets.records.get(place)
            further = before is not None and before.version == params.version
            if not further and params.version <= book.newest(self._secrets.records, params.name):
                raise ControlError(
                    "conflict",
                    f"secret {params.name} was set meanwhile by another command",
                    "run the command again",
                )
            await self._secrets.make_room()
            self._secrets.check_room(place, new, further=further)
            record = SecretRecord(
                *place, params.version, time.time(), str(actor_of(call)["peer"])[:MAX_NAME]
            )
            kept = self._secrets.sealed.get(place, {})
            stale = [] if further else [robot for robot in kept if robot not in new]
            await self._secrets.commit(
                {
                    **actor_of(call),
                    "action": "secret.set",
                    "secret": params.name,
                    "for": place[1],
                    "version": params.version,
                    "robots": sorted(new),
                },
                record,
                new,
                stale,
            )
        self._secrets.mark()
        return self._listed(params.name)

    @handles(SECRET_REMOVE)
    async def remove(self, call: Call, params: SecretRef) -> SecretList:
        """Remove a secret: from the store, and from its robots as soon as they can be reached."""
        name = params.name
        async with self._writer.changing:
            places = [
                (each, target)
                for (each, target), record in self._secrets.records.items()
                if each == name and params.target in (None, target) and not record.removed
            ]
            if not places and params.target is None and self._only_there(name):
                places = [(name, book.ALL)]
            if not places:
                what = f" for `{params.target}`" if params.target else ""
                raise ControlError(
                    "not-found", f"there is no secret `{name}`{what}", "`dorafleet secret list`"
                )
            for place in places:
                version = book.next_version(self._secrets.records, name, time.time())
                actor = actor_of(call)
                record = SecretRecord(
                    *place, version, time.time(), str(actor["peer"])[:MAX_NAME], removed=True
                )
                entry = {**actor, "action": "secret.remove", "secret": name, "for": place[1]}
                await self._secrets.commit(
                    entry, record, {}, list(self._secrets.sealed.get(place, {}))
                )
        self._secrets.mark()
        return self._listed(name)

    def _only_there(self, name: str) -> bool:
        """Return True if only robots know a secret of this name."""
        return any(each.secrets and name in each.secrets.held for each in self._robots.all)

    def _checked(self, name: str, target: str | None) -> str:
        """Return the target of a secret. Raises ControlError."""
        try:
            check_secret_name(name)
            if target is None:
                raise ControlError("bad-request", "no robot and no label is named")
            label, equals, value = target.partition("=")
            if equals:
                syntax.label(label)
                syntax.label(value)
        except TextError as error:
            raise ControlError("bad-request", f"`{name}` {error.message}", error.hint) from None
        if not equals and target != book.ALL:
            self._robots.get(target)
        return target

    def _listed(self, only: str | None = None) -> SecretList:
        """Return the state of all secrets, or of one."""
        by_place = {
            place: Secret(
                name=record.name,
                target=record.target,
                version=record.version,
                set_at=record.at,
                set_by=record.by,
                robots=[],
            )
            for place, record in self._secrets.records.items()
            if not record.removed and only in (None, record.name)
        }
        for robot in self._robots.all:
            for record, name, state in self._secrets.states(robot):
                if only not in (None, name):
                    continue
                place = (name, "" if record is None else record.target)
                if place not in by_place:
                    by_place[place] = Secret(
                        name=name, target="", version=0, set_at=0.0, set_by="", robots=[]
                    )
                by_place[place].robots.append(state)
        return SecretList(secrets=[by_place[place] for place in sorted(by_place)])


def _old_nodes(listed: NodeList, name: str) -> list[str]:
    """Return the nodes that run with an earlier value of a secret."""
    return [
        f"{each.dataflow_name or each.dataflow}/{each.node}"[:MAX_NAME]
        for each in listed.nodes
        if name in each.old_secrets
    ]
