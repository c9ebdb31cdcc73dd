"""The configuration that a process of a node gets of its dataflow."""

from dorad.daemon.broker.nodeconfig import descriptor_for

FILE = {
    "env": {"SITE": "hall 3"},
    "nodes": [
        {"id": "a", "path": "a.py", "env": {"TOKEN": "secret of a"}},
        {"id": "b", "path": "b.py", "env": {"TOKEN": "secret of b"}},
        {"id": "c", "path": "c.py"},
    ],
}


def envs(node_id: str) -> list[object]:
    return [node["env"] for node in descriptor_for(node_id, FILE)["nodes"]]


def test_a_node_is_shown_its_own_env_and_no_other() -> None:
    assert envs("a") == [{"TOKEN": "secret of a"}, None, None]
    assert envs("b") == [None, {"TOKEN": "secret of b"}, None]
    assert "secret of a" not in repr(descriptor_for("b", FILE))


def test_an_observer_is_shown_no_env_of_a_node() -> None:
    assert envs(".tap-1") == [None, None, None]
    assert descriptor_for(".tap-1", FILE)["env"] == {"SITE": "hall 3"}


def test_an_operator_has_the_keys_that_dora_s_descriptor_always_has() -> None:
    nodes = [
        {"id": "one", "operator": {"python": "x.py", "outputs": ["o"]}},
        {"id": "some", "operators": [{"id": "a", "python": "x.py", "name": "n"}]},
    ]
    one, some = descriptor_for("a", {"nodes": nodes})["nodes"]
    unset = {"name": None, "description": None, "inputs": {}, "outputs": []}
    assert one["operator"] == {**unset, "id": None, "python": "x.py", "outputs": ["o"]}
    assert some["operators"] == [{**unset, "id": "a", "python": "x.py", "name": "n"}]


def test_the_file_itself_is_unchanged() -> None:
    descriptor_for("c", FILE)
    assert FILE["nodes"][0]["env"] == {"TOKEN": "secret of a"}
