// The C++ API that dora generates for nodes, over dora/node_api.h: nodes written for dora compile
// without a change. New nodes have less to write with dora/node.hpp.
//
// As in dora, functions that cannot fill in an `error` throw rust::Error. One thread at a time uses
// the objects of a node; a second one gets an error. Events and metadata are independent of it.
// The merged streams for dora's ROS 2 bridge are not here.

#pragma once

#ifdef DORA_NODE_API_H
#error "include dora-node-api.h before dora/node_api.h: both define DoraEventType, as in dora"
#endif
#define DoraEventType DoraCEventType
#include "node_api.h"
#undef DoraEventType

#include "cxx_events.h"
#include "cxx_metadata.h"
#include "cxx_types.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

struct DoraNode {
    rust::Box<Events> events;
    rust::Box<OutputSender> send_output;
};

struct DoraInput {
    rust::String id;
    rust::Vec<std::uint8_t> data;
};

struct DoraInputWithMetadata {
    rust::String id;
    rust::Vec<std::uint8_t> data;
    rust::Box<Metadata> metadata;
};

struct DoraResult {
    rust::String error;
};

struct DoraPatternResult {
    DoraPatternStatus status;
    rust::String error;
    rust::Box<DoraEvent> event;
};

struct DoraRequestId {
    rust::String request_id;
    rust::String error;
};

struct DoraNodeFailed {
    rust::Vec<rust::String> affected_input_ids;
    rust::String error;
    rust::String source_node_id;
};

struct ArrowInputInfo {
    rust::String id;
    rust::Box<Metadata> metadata;
    rust::String error;
};

inline DoraNode init_dora_node()
{
    void *context = init_dora_context_from_env();
    if (context == nullptr)
        throw rust::Error(dora_last_error());
    const auto shared = std::make_shared<DoraContext>(context);
    return {rust::Box<Events>(Events(shared)), rust::Box<OutputSender>(OutputSender(shared))};
}

// -- receiving

inline rust::Box<DoraEvent> next_event(rust::Box<Events> &events)
{
    return events->next();
}

inline rust::Box<DoraEvent> next_event_timeout(rust::Box<Events> &events, std::uint64_t timeout_ms)
{
    const std::uint64_t most = INT64_MAX;
    return events->next(static_cast<std::int64_t>(std::min(timeout_ms, most)),
                        DoraEventType::Timeout);
}

inline rust::Box<DoraEvent> try_next_event(rust::Box<Events> &events)
{
    return events->next(0, DoraEventType::Empty);
}

inline bool events_is_empty(rust::Box<Events> &events)
{
    return events->is_empty();
}

inline rust::Box<DrainedEvents> drain_events(rust::Box<Events> &events)
{
    return rust::Box<DrainedEvents>(DrainedEvents(events->drain()));
}

inline std::size_t drained_events_len(const rust::Box<DrainedEvents> &drained)
{
    return drained->size();
}

inline rust::Box<DoraEvent> drained_events_next(rust::Box<DrainedEvents> &drained)
{
    return drained->next();
}

inline DoraEventType event_type(const rust::Box<DoraEvent> &event)
{
    return event->type();
}

inline DoraResult event_as_arrow_input(rust::Box<DoraEvent> event, std::uint8_t *array,
                                       std::uint8_t *schema)
{
    if (event->type() != DoraEventType::Input)
        return {"it is no input"};
    if (array == nullptr || schema == nullptr)
        return {"there is no place for its array"};
    const bool done = dora_event_arrow(event->get(), reinterpret_cast<ArrowSchema *>(schema),
                                       reinterpret_cast<ArrowArray *>(array)) == 0;
    return {done ? "" : dora_last_error()};
}

inline DoraInputWithMetadata event_as_input_with_metadata(rust::Box<DoraEvent> event)
{
    if (event->type() != DoraEventType::Input)
        throw rust::Error("it is no input");
    DoraInputWithMetadata input{dora_event_id(event->get()), {},
                                rust::Box<Metadata>(Metadata(event->get()))};
    ArrowSchema schema{};
    ArrowArray array{};
    if (dora_event_arrow(event->get(), &schema, &array) < 0)
        throw rust::Error(dora_last_error());
    const std::string format = schema.format;
    const bool is_bytes = format == "C" && array.null_count == 0;
    if (is_bytes && array.length > 0) {
        const auto *bytes = static_cast<const std::uint8_t *>(array.buffers[1]) + array.offset;
        input.data.assign(bytes, bytes + array.length);
    }
    array.release(&array);
    schema.release(&schema);
    if (!is_bytes && format != "n")
        throw rust::Error("it is an array of type `" + format +
                          "`: read it with event_as_arrow_input");
    return input;
}

inline DoraInput event_as_input(rust::Box<DoraEvent> event)
{
    DoraInputWithMetadata input = event_as_input_with_metadata(std::move(event));
    return {std::move(input.id), std::move(input.data)};
}

inline ArrowInputInfo event_as_arrow_input_with_info(rust::Box<DoraEvent> event,
                                                     std::uint8_t *array, std::uint8_t *schema)
{
    ArrowInputInfo info{"", new_metadata(), ""};
    try {
        if (event->type() == DoraEventType::Input) {
            info.id = dora_event_id(event->get());
            info.metadata = rust::Box<Metadata>(Metadata(event->get()));
        }
        info.error = event_as_arrow_input(std::move(event), array, schema).error;
    } catch (const rust::Error &error) {
        info.error = error.what();
    }
    return info;
}

inline DoraNodeFailed event_as_node_failed(rust::Box<DoraEvent> event)
{
    if (event->type() != DoraEventType::NodeFailed)
        throw rust::Error("it is no NodeFailed");
    DoraNodeFailed failed{{}, dora_event_text(event->get()), dora_event_id(event->get())};
    for (std::size_t at = 0; dora_event_affected_input(event->get(), at) != nullptr; at++)
        failed.affected_input_ids.emplace_back(dora_event_affected_input(event->get(), at));
    return failed;
}

// -- the node

inline rust::String node_config_json(const rust::Box<OutputSender> &sender)
{
    return sender->json(dora_node_config_json);
}

inline rust::String dataflow_descriptor_json(const rust::Box<OutputSender> &sender)
{
    return sender->json(dora_dataflow_descriptor_json);
}

inline DoraResult log_message(const rust::Box<OutputSender> &sender, rust::String level,
                              rust::String message)
{
    return {sender->use([&](void *context) {
        return dora_log(context, level.data(), level.size(), message.data(), message.size());
    })};
}

// -- sending

inline DoraResult send_output_with_metadata(rust::Box<OutputSender> &sender, rust::String id,
                                            rust::Slice<const std::uint8_t> data,
                                            rust::Box<Metadata> metadata)
{
    return {sender->use([&](void *context) {
        return dora_send_bytes(context, id.c_str(), data.data(), data.size(),
                               metadata->plain().get());
    })};
}

inline DoraResult send_output(rust::Box<OutputSender> &sender, rust::String id,
                              rust::Slice<const std::uint8_t> data)
{
    return send_output_with_metadata(sender, std::move(id), data, new_metadata());
}

// It takes over the array, which is released.
inline DoraResult send_arrow_output(rust::Box<OutputSender> &sender, rust::String id,
                                    std::uint8_t *array, std::uint8_t *schema,
                                    rust::Box<Metadata> metadata)
{
    auto *values = reinterpret_cast<ArrowArray *>(array);
    auto *type = reinterpret_cast<ArrowSchema *>(schema);
    if (values == nullptr || type == nullptr)
        return {"there is no array, or no schema"};
    rust::String error = sender->use([&](void *context) {
        return dora_send_arrow(context, id.c_str(), type, values, metadata->plain().get());
    });
    if (values->release != nullptr)
        values->release(values);
    if (type->release != nullptr)
        type->release(type);
    return {std::move(error)};
}

inline DoraResult send_arrow_output(rust::Box<OutputSender> &sender, rust::String id,
                                    std::uint8_t *array, std::uint8_t *schema)
{
    return send_arrow_output(sender, std::move(id), array, schema, new_metadata());
}

// -- services and actions

inline rust::String new_request_id()
{
    char id[37];
    dora_new_id(id);
    return id;
}

inline rust::String new_goal_id()
{
    return new_request_id();
}

inline rust::String goal_status_succeeded() { return "succeeded"; }
inline rust::String goal_status_aborted() { return "aborted"; }
inline rust::String goal_status_canceled() { return "canceled"; }

inline DoraRequestId send_service_request(rust::Box<OutputSender> &sender, rust::String output_id,
                                          rust::Slice<const std::uint8_t> data,
                                          rust::Box<Metadata> metadata)
{
    rust::String id = new_request_id();
    metadata->set_request_id(id);
    DoraResult sent =
        send_output_with_metadata(sender, std::move(output_id), data, std::move(metadata));
    return {sent.error.empty() ? id : "", sent.error};
}

inline DoraRequestId send_arrow_service_request(rust::Box<OutputSender> &sender,
                                                rust::String output_id, std::uint8_t *array,
                                                std::uint8_t *schema, rust::Box<Metadata> metadata)
{
    rust::String id = new_request_id();
    metadata->set_request_id(id);
    DoraResult sent =
        send_arrow_output(sender, std::move(output_id), array, schema, std::move(metadata));
    return {sent.error.empty() ? id : "", sent.error};
}

inline DoraResult send_service_response(rust::Box<OutputSender> &sender, rust::String output_id,
                                        rust::Slice<const std::uint8_t> data,
                                        rust::Box<Metadata> metadata)
{
    return send_output_with_metadata(sender, std::move(output_id), data, std::move(metadata));
}

// Wait for the message whose `key` is `id`; with a `last`, that must be in its metadata, too.
inline DoraPatternResult dora_wait_for(rust::Box<Events> &events, const char *key, rust::Str id,
                                       const char *last, rust::Str server, std::uint64_t timeout_ms)
{
    static const char *const ERRORS[] = {"", "no reply came in time", "the server was restarted",
                                         "the node stops", "an error came", ""};
    const std::string wanted(id), peer(server);
    if (peer.empty() || peer.find('/') != std::string::npos)
        return {DoraPatternStatus::InvalidArgument, "`" + peer + "` is not the id of a node",
                rust::Box<DoraEvent>(DoraEvent(DoraEventType::Empty))};
    DoraPatternStatus status = DoraPatternStatus::Timeout;
    rust::Box<DoraEvent> event = events->wait(
        timeout_ms,
        [&](const DoraEvent &each, DoraPatternStatus &found) {
            if (each.get() == nullptr)
                return false;
            const bool is_peer = peer == dora_event_id(each.get());
            if (is_peer && std::strcmp(dora_event_name(each.get()), "NODE_RESTARTED") == 0)
                found = DoraPatternStatus::ServerRestarted;
            if (each.type() != DoraEventType::Input)
                return false;
            const DoraMetadata *metadata = dora_event_metadata(each.get());
            const char *text = dora_metadata_get_string(metadata, key);
            if (text == nullptr || wanted != text ||
                (last != nullptr && dora_metadata_get_string(metadata, last) == nullptr))
                return false;
            found = DoraPatternStatus::Matched;
            return true;
        },
        status);
    return {status, ERRORS[static_cast<int>(status)], std::move(event)};
}

inline DoraPatternResult recv_service_response(rust::Box<Events> &events, rust::Str request_id,
                                               rust::Str server_node_id, std::uint64_t timeout_ms)
{
    return dora_wait_for(events, "request_id", request_id, nullptr, server_node_id, timeout_ms);
}

inline DoraPatternResult recv_action_result(rust::Box<Events> &events, rust::Str goal_id,
                                            rust::Str server_node_id, std::uint64_t timeout_ms)
{
    return dora_wait_for(events, "goal_id", goal_id, "goal_status", server_node_id, timeout_ms);
}
