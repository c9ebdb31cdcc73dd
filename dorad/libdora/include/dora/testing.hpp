// Unit tests of nodes in C++ without a dataflow; see dora/testing.h.
//
//     dora::testing::MockNode mock;
//     mock.input("image", "abc");
//     run(mock.node());
//     assert(mock.sent("mean").data().text() == "...");

#pragma once

#include <dora/node.hpp>
#include <dora/testing.h>

namespace dora::testing {

class MockNode {
public:
    explicit MockNode(const char *node_id = "mock") : node_(Node::of(dora_mock_new(node_id))) {}

    // The node to pass to the code under test.
    Node &node() { return node_; }

    MockNode &input(const char *id, Bytes data, const Metadata &metadata = {})
    {
        return done(dora_mock_input(node_.get(), id, data.data(), data.size(), metadata.get()));
    }
    template <typename T>
    MockNode &input_values(const char *id, const std::vector<T> &values, const Metadata &metadata = {})
    {
        detail::Borrowed<T> data(values.data(), values.size());
        return done(dora_mock_input_arrow(node_.get(), id, &data.schema, &data.array, metadata.get()));
    }
    MockNode &event(const char *name, const char *id = "", const char *text = "")
    {
        return done(dora_mock_event(node_.get(), name, id, text));
    }
    MockNode &param(const char *key, const char *json)
    {
        return done(dora_mock_param(node_.get(), key, json));
    }
    MockNode &reply(const char *output, Bytes data, const Metadata &metadata = {})
    {
        return done(dora_mock_reply(node_.get(), output, data.data(), data.size(), metadata.get()));
    }

    // Take the oldest message that was sent on an output; empty if there is none left.
    Event sent(const char *output) { return Event(dora_mock_sent(node_.get(), output)); }

private:
    MockNode &done(int result)
    {
        detail::check(result);
        return *this;
    }
    Node node_;
};

} // namespace dora::testing
