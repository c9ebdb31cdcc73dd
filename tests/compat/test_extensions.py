"""The extension table of a dataflow: opaque values that its nodes share."""

from tests.harness.dataflow import Flow


def test_a_node_loads_and_drops_what_it_has_stored(flow: Flow) -> None:
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        node = Node()
        report(node.extension_store("n", "k", b"1"))
        node.extension_store("n", "k", b"22")
        node.extension_store("", "", b"")
        big = bytes(range(256)) * 40_000
        node.extension_store("n", "big", big)
        report(node.extension_load("n", "big") == big)
        report([node.extension_load("n", "k").decode(), node.extension_load("", "").decode()])
        report(node.extension_load("n", "absent"))
        report(node.extension_drop("n", "absent"))
        report(node.drain_dropped_extension_keys("n"))
        report(node.extension_drop("n", "k"))
        report(node.extension_load("n", "k", True))
        report(node.extension_load("n", "big", remove=True) == big)
        report(node.extension_load("n", "big"))
        """,
    )
    flow.run(stop_after=10).expect(0)
    expected = [None, True, ["22", ""], None, None, [], None, None, True, None]
    assert flow.reports("node") == expected


def test_wrong_types_are_type_errors(flow: Flow) -> None:
    flow.node(
        "node",
        """
        from dora import Node
        from probe import report

        node = Node()
        for call in (
            lambda: node.extension_store("n", "k", "text"),
            lambda: node.extension_store("n", "k", bytearray(b"x")),
            lambda: node.extension_store(1, "k", b"x"),
            lambda: node.extension_load("n", 1),
            lambda: node.extension_drop(None, "k"),
            lambda: node.drain_dropped_extension_keys(1),
        ):
            try:
                report(call())
            except TypeError:
                report("TypeError")
        """,
    )
    flow.run(stop_after=10).expect(0)
    assert flow.reports("node") == ["TypeError"] * 6


def test_nodes_share_values_until_their_owner_ends(flow: Flow) -> None:
    flow.node(
        "owner",
        """
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = Node()
        for key in ("kept", "taken", "unread"):
            node.extension_store("n", key, key.encode())
        node.send_output("ready", pa.array([1]))
        while node.next()["type"] != "INPUT":
            pass
        report(node.drain_dropped_extension_keys("n"))
        """,
        inputs={"read": "reader/read"},
        outputs=["ready"],
    )
    flow.node(
        "reader",
        """
        import pyarrow as pa
        from dora import Node
        from probe import report

        node = Node()
        node.next()
        report(node.extension_load("n", "kept").decode())
        report(node.extension_load("n", "taken", remove=True).decode())
        try:
            node.extension_store("n", "kept", b"mine")
        except RuntimeError as error:
            report([word for word in ("n/kept", "owner") if word in str(error)])
        node.send_output("read", pa.array([1]))
        dropped = []
        while "kept" not in dropped:
            node.next(timeout=0.05)
            dropped += node.drain_dropped_extension_keys("n")
        report(dropped)
        report([node.extension_load("n", key) for key in ("kept", "unread")])
        """,
        inputs={"ready": "owner/ready"},
        outputs=["read"],
    )
    flow.run(stop_after=20).expect(0)
    assert flow.reports("owner") == [["taken"]]
    assert flow.reports("reader") == [
        "kept",
        "taken",
        ["n/kept", "owner"],
        ["taken", "kept"],
        [None, None],
    ]
