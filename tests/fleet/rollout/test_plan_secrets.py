"""What a plan of a rollout says of secrets that robots lack."""

from types import SimpleNamespace

from dorad.release.manifest import NodeContent, Place
from dorafleet.coordinator.rolloutplans import RolloutPlans

DIGEST = "ab" * 32


def node(*secrets, place=None):
    return NodeContent(DIGEST, python=True, place=place, secrets=list(secrets))


def notes(nodes, *, has):
    """Return the notes about a robot that has these secrets, and the label zone=hall."""
    planner = SimpleNamespace(labels=lambda robot: {"zone": "hall"})
    secrets = SimpleNamespace(
        lacking=lambda robot, names: [name for name in names if name not in has]
    )
    plans = RolloutPlans(None, None, None, None, planner, secrets)
    robot = SimpleNamespace(id="arm1")
    return list(plans._lacking(robot, SimpleNamespace(nodes=nodes)))


def test_a_secret_that_a_robot_lacks_is_named_with_its_nodes_and_the_command() -> None:
    nodes = {"cam": node("api-key", "tls"), "arm": node("tls"), "log": node()}
    assert notes(nodes, has={"api-key", "tls"}) == []
    assert notes(nodes, has={"api-key"}) == [
        "it lacks the secret tls of nodes cam, arm: dorafleet secret set tls --for arm1"
    ]


def test_secrets_of_nodes_that_run_on_other_machines_are_not_missed() -> None:
    nodes = {
        "a": node("one", place=Place(machine="arm2")),
        "b": node("two", place=Place(labels={"zone": "lab"})),
        "c": node("three", place=Place(machine="arm1", labels={"zone": "hall"})),
    }
    assert [note.split()[4] for note in notes(nodes, has=set())] == ["three"]
