"""What a robot takes: patterns, and what one that says nothing, or something wrong, takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dorad.control.agentsettings import read_accepts, refusal, refusals
from dorad.control.codec import decode, encode
from dorad.control.messages import Share
from dorad.control.messages.agent import MAX_PATTERNS, Accepts

NAMES = st.sampled_from(["arm", "arm2", "cam", "cell1-arm", "a"])
NODES = st.lists(NAMES, max_size=3, unique=True)
NODE_PATTERNS = st.lists(
    st.builds("{}/{}".format, *[st.sampled_from(["*", "arm", "arm*", "c*m", "a"])] * 2), max_size=3
)
NETWORKS = st.lists(st.sampled_from(["10.1.0.0/16", "10.2.0.0/16", "fd00::/8"]), max_size=2)
ENDPOINTS = st.sampled_from(
    ["tls/10.1.2.3:5456", "tls/10.2.2.3:1", "tls/[fd00::1]:5456", "tls/router:5456", "tcp/x"]
)
BOUNDS = {
    "nodes": NODE_PATTERNS,
    "params": NODE_PATTERNS,
    "max_param": st.integers(0, 8),
    "peers": st.lists(st.sampled_from(["*", "arm*", "cam"]), max_size=2),
    "networks": NETWORKS,
}
ACCEPTS = st.builds(
    Accepts,
    inline=st.booleans(),
    **{key: st.none() | each for key, each in BOUNDS.items()},
)
SHARES = st.builds(
    Share,
    machine=NAMES,
    placement=st.dictionaries(NAMES, NAMES, max_size=3),
    connect=st.lists(ENDPOINTS, max_size=2),
    connect_to=st.lists(NAMES, max_size=1),
)
PARAMS = st.dictionaries(
    st.builds("{}/{}".format, NAMES, NAMES), st.text("x", max_size=8) | st.integers(), max_size=3
)


@given(ACCEPTS, NAMES, NODES, PARAMS, st.none() | SHARES, st.booleans())
def test_each_bound_refuses_by_itself_and_names_its_key(
    accepts, dataflow, nodes, params, share, inline
):
    def ask(bounds):
        return refusal(bounds, dataflow, nodes, params, share, inline=inline)

    why = ask(accepts)
    alone = {key: ask(Accepts(**{key: getattr(accepts, key)})) for key in (*BOUNDS, "inline")}
    # It is refused if and only if one of them alone refuses it; and the text is that of one.
    assert bool(why) == any(alone.values())
    assert why in ("", *alone.values())
    for key, text in alone.items():
        assert not text or (f"`{key}" in text and "in [agent] of its dorad.toml" in text)
    assert ask(Accepts()) == ""
    # Placement hears the same as the order.
    by_node = refusals(accepts, dataflow, nodes, inline=inline)
    assert bool(by_node) == bool(refusal(accepts, dataflow, nodes, {}, inline=inline))
    # What is wrong with the file refuses everything, also nothing.
    wrong = replace(accepts, problem="line 3")
    assert "line 3" in refusal(wrong, dataflow, [], {}, inline=inline)
    assert refusals(wrong, dataflow, nodes).keys() == set(nodes)


@given(ACCEPTS)
def test_what_a_robot_takes_survives_the_wire(accepts):
    assert decode(encode(accepts), Accepts, "an answer") == accepts


@pytest.mark.parametrize(
    ("pattern", "dataflow", "node", "taken"),
    [
        ("pick/*", "pick", "gripper", True),
        ("pick/*", "pick2", "gripper", False),
        ("*/camera", "pick", "camera", True),
        ("*/camera", "pick", "camera2", False),
        ("pick/cam-*", "pick", "cam-left", True),
        # A star of one part does not reach into the other.
        ("*/camera", "a/b", "camera/x", False),
        ("pick*/a", "pick/b", "a", True),
    ],
)
def test_a_pattern_is_matched_part_by_part(pattern, dataflow, node, taken):
    assert (refusal(Accepts(nodes=[pattern]), dataflow, [node], {}) == "") is taken


@pytest.mark.parametrize(
    "endpoint",
    [
        "tls/6.6.6.6:1#x=10.1.0.1:5456",
        "tls/10.1.0.1",
        "10.1.0.1:5456",
        "tls/10.1.0.1.:5",
        "",
        "tls/:1",
    ],
)
def test_an_endpoint_that_is_no_plain_address_is_in_no_network(endpoint):
    share = Share(machine="arm1", placement={}, connect=[endpoint])
    assert "`networks`" in refusal(Accepts(networks=["0.0.0.0/0", "::/0"]), "f", [], {}, share)


def test_the_file_says_it_and_without_it_a_robot_takes_everything(tmp_path):
    file = tmp_path / "dorad.toml"
    assert read_accepts(file) == Accepts()
    file.write_text("[nodes]\nuser = 'x'\n")
    assert read_accepts(file) == Accepts()
    file.write_text(
        "[agent]\ninline = false\nnodes = ['pick/*']\nparams = []\nmax_param = '4 KB'\n"
        "peers = ['cell1-*']\nnetworks = ['10.1.0.0/16', 'fd00::/8']\n"
    )
    assert read_accepts(file) == Accepts(
        inline=False,
        nodes=["pick/*"],
        params=[],
        max_param=4096,
        peers=["cell1-*"],
        networks=["10.1.0.0/16", "fd00::/8"],
    )
    patterns = [f"a{number}/*" for number in range(MAX_PATTERNS + 1)]
    file.write_text(f"[agent]\nnodes = {patterns}\n")
    assert f"more than {MAX_PATTERNS} entries" in read_accepts(file).problem
    file.unlink()
    file.mkdir()
    assert "dorad.toml" in read_accepts(file).problem
