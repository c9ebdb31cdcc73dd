"""Access rules of Zenoh: under which keys a machine may speak and listen, by its certificate.

Zenoh compares each key with the common name in the certificate of the connection, because a sample
does not say over which connection it came. Pure.
"""

from collections.abc import Iterable
from typing import Any

MAX_COMMON_NAME = 64
"""Characters of a machine's name that its certificate has as the common name."""

_OFFERS = ["put", "liveliness_token"]
_ASKS = ["declare_subscriber", "declare_liveliness_subscriber", "liveliness_query"]


def root_of(dataflow: str) -> str:
    """Return the prefix of all keys of a dataflow."""
    return f"dorad/{dataflow}"


def session_rules(dataflow: str, machine: str, peers: Iterable[str]) -> dict[str, Any]:
    """Return the rules by which each peer may speak, and be spoken to, under its own name only.

    The peer can send to this machine what is its own, and receive what this machine sends to it.
    All else is refused at both ends.
    """
    root = root_of(dataflow)
    rules, subjects, policies = [], [], []
    for peer in peers:
        its = [f"{root}/to/{machine}/{peer}/*", f"{root}/alive/{peer}/*"]
        ours = [f"{root}/to/{peer}/{machine}/*", f"{root}/alive/{machine}/*"]
        own = [
            _rule(f"{peer}-offers", _OFFERS, ["ingress"], its),
            _rule(f"{peer}-receives", _ASKS, ["ingress"], ours),
            _rule(f"{peer}-is-sent", _OFFERS, ["egress"], ours),
            _rule(f"{peer}-is-asked", _ASKS, ["egress"], its),
        ]
        rules += own
        subjects.append(_subject(peer))
        policies.append({"rules": [rule["id"] for rule in own], "subjects": [peer]})
    return _only(rules, subjects, policies)


def router_rules(machines: Iterable[str]) -> dict[str, Any]:
    """Return the rules by which a router lets each machine speak and listen under its own name.

    Machines see no connection but the router's, so only the router can tell who speaks.
    """
    root = root_of("*")
    shared = [
        _rule("all-ask", _ASKS, ["ingress", "egress"], [root_of("**")]),
        _rule("all-see", ["liveliness_token"], ["egress"], [f"{root}/alive/**"]),
    ]
    rules, subjects, policies = [], [], []
    for machine in machines:
        says = [f"{root}/to/*/{machine}/*", f"{root}/alive/{machine}/*"]
        own = [
            _rule(f"{machine}-says", _OFFERS, ["ingress"], says),
            _rule(f"{machine}-hears", ["put"], ["egress"], [f"{root}/to/{machine}/*/*"]),
        ]
        rules += own
        subjects.append(_subject(machine))
        names = [rule["id"] for rule in (*own, *shared)]
        policies.append({"rules": names, "subjects": [machine]})
    return _only([*rules, *shared], subjects, policies)


def _rule(id_: str, messages: list[str], flows: list[str], keys: list[str]) -> dict[str, Any]:
    return {
        "id": id_,
        "permission": "allow",
        "messages": messages,
        "flows": flows,
        "key_exprs": keys,
    }


def _subject(machine: str) -> dict[str, Any]:
    return {"id": machine, "cert_common_names": [machine[:MAX_COMMON_NAME]]}


def _only(
    rules: list[dict[str, Any]], subjects: list[dict[str, Any]], policies: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the rules as Zenoh takes them; it refuses what none of them allows."""
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": subjects,
        "policies": policies,
    }
