// A node against the C++ API that dora generates: it checks what it can of its own, answers requests,
// follows goals, and passes arrays on with all kinds of metadata.

#include <dora-node-api.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>

static void expect(bool right, const char *what)
{
    if (!right) {
        std::cout << "failed: " << what << std::endl;
        std::exit(2);
    }
}

template <typename Call> static std::string error_of(Call call)
{
    try {
        call();
    } catch (const std::exception &error) {
        return error.what();
    }
    return "";
}

static void check_metadata()
{
    auto metadata = new_metadata();
    metadata->set_int("n", -3);
    metadata->set_float("f", 0.5);
    metadata->set_string("a", "x\"\n");
    metadata->set_bool("t", true);
    metadata->set_timestamp("when", -1'500);
    rust::Vec<rust::String> texts;
    texts.push_back("one");
    texts.push_back("two");
    metadata->set_list_string("texts", std::move(texts));
    expect(metadata->list_keys().size() == 6 && metadata->list_keys()[0] == "a", "sorted keys");
    expect(metadata->type("texts") == MetadataValueType::ListString, "type");
    expect(std::string(metadata->get_json("texts")) == "[\"one\",\"two\"]", "JSON of a list");
    expect(std::string(metadata->get_json("when")) == "\"1969-12-31T23:59:59.999998Z\"", "time");
    expect(std::string(metadata->to_json()) ==
               "{\"timestamp\":0,\"parameters\":{\"a\":{\"String\":\"x\\\"\\u000a\"},"
               "\"f\":{\"Float\":0.5},\"n\":{\"Integer\":-3},\"t\":{\"Bool\":true},"
               "\"texts\":{\"ListString\":[\"one\",\"two\"]},"
               "\"when\":{\"Timestamp\":\"1969-12-31T23:59:59.999998Z\"}}}",
           "JSON");
    expect(error_of([&] { metadata->get_int("f"); }) ==
               "metadata key 'f' has type Float, expected integer",
           "another type");
    expect(error_of([&] { metadata->get_int("none"); }) == "metadata has no key 'none'", "no key");
}

static void answer(DoraNode &node, rust::Box<DoraEvent> event)
{
    auto input = event_as_input_with_metadata(std::move(event));
    const std::uint8_t sum = input.data.empty() ? 0 : input.data[0] + 1;
    auto result = send_service_response(node.send_output, "answer", {&sum, 1},
                                        std::move(input.metadata));
    expect(result.error.empty(), "the answer is sent");
}

static void ask(DoraNode &node)
{
    const std::uint8_t one = 1;
    auto request = send_service_request(node.send_output, "request", {&one, 1}, new_metadata());
    expect(request.error.empty(), "the request is sent");
    auto bad = recv_service_response(node.events, request.request_id, "a/b", 10);
    expect(bad.status == DoraPatternStatus::InvalidArgument, "no node's id");
    auto none = recv_service_response(node.events, "another", "server", 20);
    expect(none.status == DoraPatternStatus::Timeout, "no reply in time");
    expect(event_type(none.event) == DoraEventType::Timeout, "its event");
    auto reply = recv_service_response(node.events, request.request_id, "server", 30000);
    expect(reply.status == DoraPatternStatus::Matched, "a reply");
    auto input = event_as_input(std::move(reply.event));
    expect(input.data.size() == 1 && input.data[0] == 2, "its data");
}

static void pass(DoraNode &node, rust::Box<DoraEvent> event)
{
    ArrowArray array;
    ArrowSchema schema;
    auto info = event_as_arrow_input_with_info(std::move(event),
                                               reinterpret_cast<std::uint8_t *>(&array),
                                               reinterpret_cast<std::uint8_t *>(&schema));
    expect(info.error.empty(), info.error.c_str());
    auto sent = send_arrow_output(node.send_output, "out", reinterpret_cast<std::uint8_t *>(&array),
                                  reinterpret_cast<std::uint8_t *>(&schema),
                                  std::move(info.metadata));
    expect(sent.error.empty(), sent.error.c_str());
    expect(array.release == nullptr && schema.release == nullptr, "the array is released");
}

/* While another thread waits for an event, this one gets an error. */
static void check_threads(DoraNode &node)
{
    std::atomic<bool> seen{false};
    std::thread other([&] {
        while (!seen)
            error_of([&] { next_event_timeout(node.events, 20); });
    });
    while (!seen) {
        const std::string error(log_message(node.send_output, "info", "beside").error);
        seen = error == "another thread uses this node: one thread at a time may";
        expect(error.empty() || seen, "another error");
    }
    other.join();
}

int main()
{
    check_metadata();
    auto node = init_dora_node();
    const std::string role = std::getenv("ROLE");
    expect(!node_config_json(node.send_output).empty(), "its configuration");
    expect(std::string(dataflow_descriptor_json(node.send_output)).find("server") !=
               std::string::npos,
           "the dataflow");
    while (true) {
        auto event = next_event(node.events);
        const auto type = event_type(event);
        if (type == DoraEventType::Stop || type == DoraEventType::AllInputsClosed)
            break;
        if (type == DoraEventType::NodeFailed) {
            auto failed = event_as_node_failed(std::move(event));
            std::cout << "failed node: " << failed.source_node_id;
            for (const auto &input : failed.affected_input_ids)
                std::cout << " " << input;
            std::cout << std::endl;
        } else if (type == DoraEventType::Input && role == "server") {
            answer(node, std::move(event));
        } else if (type == DoraEventType::Input && role == "pass") {
            pass(node, std::move(event));
        } else if (type == DoraEventType::Input) {
            check_threads(node);
            expect(error_of([&] { event_as_input(std::move(event)); }).empty(), "a tick has no data");
            ask(node);
            auto drained = drain_events(node.events);
            std::cout << "asked, " << drained_events_len(drained) << " others" << std::endl;
            break;
        }
    }
    return 0;
}
