// The node API of dora for C++17, over dora/node_api.h: objects own what they refer to.
//
// Failures throw dora::Error. With -fno-exceptions, or DORA_NO_EXCEPTIONS defined, functions that
// can fail return false, and dora_last_error() says why; check Node::operator bool after its
// construction.

#pragma once

#include <dora/node_api.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#if __cplusplus >= 202002L && __has_include(<span>)
#include <span>
#endif

#if !defined(DORA_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define DORA_NO_EXCEPTIONS
#endif

namespace dora {

class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// A call or goal that got no reply, or an error; `code` is one of DORA_NO_PEER and so on.
class ReplyError : public Error {
public:
    ReplyError(int code, const char *text) : Error(text), code(code) {}
    int code;
};

namespace detail {
inline bool check(int result)
{
#ifndef DORA_NO_EXCEPTIONS
    if (result <= DORA_NO_PEER)
        throw ReplyError(result, dora_last_error());
    if (result < 0)
        throw Error(dora_last_error());
#endif
    return result >= 0;
}

inline std::string take(char *text)
{
    std::string copy = text == nullptr ? "" : text;
    std::free(text);
    return copy;
}
} // namespace detail

// Bytes that belong to something else. With C++20 it converts to std::span.
class Bytes {
public:
    constexpr Bytes() = default;
    constexpr Bytes(const void *data, std::size_t size) : data_(data), size_(size) {}
    Bytes(std::string_view text) : data_(text.data()), size_(text.size()) {}
    Bytes(const char *text) : Bytes(std::string_view(text)) {}
    Bytes(const std::string &text) : Bytes(std::string_view(text)) {}
    template <typename T> Bytes(const std::vector<T> &items)
        : data_(items.data()), size_(items.size() * sizeof(T)) {}
#ifdef __cpp_lib_span
    template <typename T, std::size_t N> Bytes(std::span<T, N> items)
        : data_(items.data()), size_(items.size_bytes()) {}
    operator std::span<const std::byte>() const
    {
        return {static_cast<const std::byte *>(data_), size_};
    }
#endif
    const unsigned char *data() const { return static_cast<const unsigned char *>(data_); }
    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    const unsigned char *begin() const { return data(); }
    const unsigned char *end() const { return data() + size_; }
    std::string_view text() const { return {static_cast<const char *>(data_), size_}; }

private:
    const void *data_ = nullptr;
    std::size_t size_ = 0;
};

// The metadata of an event; valid as long as that.
class MetadataView {
public:
    explicit MetadataView(const DoraMetadata *metadata) : own_(metadata) {}
    std::optional<bool> get_bool(const char *key) const { return get<bool>(key, dora_metadata_get_bool); }
    std::optional<std::int64_t> get_int(const char *key) const
    {
        return get<std::int64_t>(key, dora_metadata_get_int);
    }
    std::optional<double> get_float(const char *key) const
    {
        return get<double>(key, dora_metadata_get_float);
    }
    std::optional<std::string_view> get_string(const char *key) const
    {
        const char *text = dora_metadata_get_string(own_, key);
        return text == nullptr ? std::nullopt : std::optional<std::string_view>(text);
    }
    std::vector<std::int64_t> get_ints(const char *key) const
    {
        return items<std::int64_t>(key, dora_metadata_get_int_at);
    }
    std::vector<double> get_floats(const char *key) const
    {
        return items<double>(key, dora_metadata_get_float_at);
    }
    std::vector<std::string> get_strings(const char *key) const
    {
        std::vector<std::string> values;
        for (std::size_t at = 0; at < dora_metadata_length(own_, key); at++) {
            const char *text = dora_metadata_get_string_at(own_, key, at);
            if (text == nullptr)
                return {};
            values.emplace_back(text);
        }
        return values;
    }
    bool has(const char *key) const { return dora_metadata_type(own_, key) != DORA_METADATA_NONE; }
    const DoraMetadata *get() const { return own_; }

private:
    template <typename T>
    std::optional<T> get(const char *key, int (*read)(const DoraMetadata *, const char *, T *)) const
    {
        T value{};
        return read(own_, key, &value) == 0 ? std::optional<T>(value) : std::nullopt;
    }
    template <typename T>
    std::vector<T> items(const char *key,
                         int (*read)(const DoraMetadata *, const char *, std::size_t, T *)) const
    {
        std::vector<T> values(dora_metadata_length(own_, key));
        for (std::size_t at = 0; at < values.size(); at++)
            if (read(own_, key, at, &values[at]) < 0)
                return {};
        return values;
    }
    const DoraMetadata *own_;
};

class Event;

// Metadata to send.
class Metadata {
public:
    Metadata() : own_(dora_metadata_new()) {}
    Metadata &set(const char *key, bool value) { return done(dora_metadata_set_bool(get(), key, value)); }
    Metadata &set(const char *key, int value) { return set(key, static_cast<std::int64_t>(value)); }
    Metadata &set(const char *key, std::int64_t value)
    {
        return done(dora_metadata_set_int(get(), key, value));
    }
    Metadata &set(const char *key, double value)
    {
        return done(dora_metadata_set_float(get(), key, value));
    }
    Metadata &set(const char *key, const char *value)
    {
        return done(dora_metadata_set_string(get(), key, value));
    }
    Metadata &set(const char *key, const std::string &value) { return set(key, value.c_str()); }
    Metadata &set(const char *key, const std::vector<std::int64_t> &values)
    {
        return done(dora_metadata_set_ints(get(), key, values.data(), values.size()));
    }
    Metadata &set(const char *key, const std::vector<double> &values)
    {
        return done(dora_metadata_set_floats(get(), key, values.data(), values.size()));
    }
    // Give it the request_id or goal_id of the message that it answers.
    Metadata &answer(const Event &request);
    DoraMetadata *get() const { return own_.get(); }

private:
    Metadata &done(int result)
    {
        detail::check(result);
        return *this;
    }
    struct Free {
        void operator()(DoraMetadata *metadata) const { dora_metadata_free(metadata); }
    };
    std::unique_ptr<DoraMetadata, Free> own_;
};

namespace detail {
// The letter of a plain type in Arrow's C data interface.
template <typename T> constexpr char format()
{
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>, "plain numbers only");
    if constexpr (std::is_floating_point_v<T>)
        return sizeof(T) == 4 ? 'f' : 'g';
    else if constexpr (std::is_signed_v<T>)
        return sizeof(T) == 1 ? 'c' : sizeof(T) == 2 ? 's' : sizeof(T) == 4 ? 'i' : 'l';
    else
        return sizeof(T) == 1 ? 'C' : sizeof(T) == 2 ? 'S' : sizeof(T) == 4 ? 'I' : 'L';
}

// An array of numbers for the time of one call; it owns nothing.
template <typename T> struct Borrowed {
    char letters[2] = {format<T>(), 0};
    const void *buffers[2];
    ArrowSchema schema{};
    ArrowArray array{};

    Borrowed(const T *values, std::size_t count) : buffers{nullptr, values}
    {
        schema.format = letters;
        schema.name = "";
        schema.release = [](ArrowSchema *own) { own->release = nullptr; };
        array.length = static_cast<std::int64_t>(count);
        array.n_buffers = 2;
        array.buffers = buffers;
        array.release = [](ArrowArray *own) { own->release = nullptr; };
    }
};
} // namespace detail

// An array of an event, released with this object. Pass `&schema, &array` on to Arrow's
// ImportArray, which takes them over.
struct Array {
    ArrowSchema schema{};
    ArrowArray array{};

    Array() = default;
    Array(const Array &) = delete;
    Array &operator=(const Array &) = delete;
    Array(Array &&other) noexcept : schema(other.schema), array(other.array)
    {
        other.schema.release = nullptr;
        other.array.release = nullptr;
    }
    ~Array()
    {
        if (array.release != nullptr)
            array.release(&array);
        if (schema.release != nullptr)
            schema.release(&schema);
    }
    // The values of a plain array, without regard to nulls; nullptr for another type.
    template <typename T> const T *values() const
    {
        static_assert(std::is_arithmetic_v<T>, "arrays of plain numbers only");
        return array.n_buffers == 2 && schema.format[0] == detail::format<T>() && schema.format[1] == 0
                   ? static_cast<const T *>(array.buffers[1]) + array.offset
                   : nullptr;
    }
    std::size_t size() const { return static_cast<std::size_t>(array.length); }
};

class Event {
public:
    explicit Event(void *event) : own_(event) {}
    explicit operator bool() const { return own_ != nullptr; }
    std::string_view name() const { return dora_event_name(own_.get()); }
    bool is_input() const { return read_dora_event_type(own_.get()) == DoraEventType_Input; }
    bool is_stop() const { return read_dora_event_type(own_.get()) == DoraEventType_Stop; }
    std::string_view id() const { return dora_event_id(own_.get()); }
    std::string_view text() const { return dora_event_text(own_.get()); }
    // The bytes of an array of UInt8; valid as long as the event.
    Bytes data() const
    {
        char *data;
        std::size_t size;
        read_dora_input_data(own_.get(), &data, &size);
        return {data, size};
    }
    MetadataView metadata() const { return MetadataView(dora_event_metadata(own_.get())); }
    std::chrono::nanoseconds timestamp() const
    {
        return std::chrono::nanoseconds(dora_event_timestamp_ns(own_.get()));
    }
    // The array of any type that C can read; valid longer than the event.
    Array arrow() const
    {
        Array exported;
        detail::check(dora_event_arrow(own_.get(), &exported.schema, &exported.array));
        return exported;
    }
    // Visit the messages of a set of synchronised inputs as (input, Array, MetadataView).
    template <typename F> void each_member(F visit) const
    {
        for (std::size_t at = 0; at < dora_event_member_count(own_.get()); at++) {
            void *member = dora_event_member(own_.get(), at);
            Array exported;
            detail::check(dora_event_arrow(member, &exported.schema, &exported.array));
            visit(std::string_view(dora_event_id(member)), std::move(exported),
                  MetadataView(dora_event_metadata(member)));
        }
    }
    void *get() const { return own_.get(); }

private:
    struct Free {
        void operator()(void *event) const { free_dora_event(event); }
    };
    std::unique_ptr<void, Free> own_;
};

inline Metadata &Metadata::answer(const Event &request)
{
    return done(dora_metadata_answer(get(), request.get()));
}

class Node;

// A buffer in shared memory, which is sent without a copy, or given back with this object.
class Buffer {
public:
    Buffer(void *context, std::size_t size)
        : context_(context), data_(dora_alloc_output(context, size)), size_(size)
    {
        detail::check(data_ == nullptr ? -1 : 0);
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    Buffer(Buffer &&other) noexcept
        : context_(other.context_), data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
    ~Buffer()
    {
        if (data_ != nullptr)
            dora_free_output(context_, data_);
    }
    unsigned char *data() const { return static_cast<unsigned char *>(data_); }
    std::size_t size() const { return size_; }
    template <typename T> T *as() const { return static_cast<T *>(data_); }

private:
    friend class Node;
    void *context_, *data_;
    std::size_t size_;
};

class Node {
public:
    // Join the dataflow that has started this process; with an id, a running one.
    Node() : own_(init_dora_context_from_env()) { detail::check(own_ ? 0 : -1); }
    explicit Node(const char *node_id) : own_(init_dora_context_from_node_id(node_id))
    {
        detail::check(own_ ? 0 : -1);
    }
    // Take over a context.
    static Node of(void *context) { return Node(Taken{context}); }
    explicit operator bool() const { return own_ != nullptr; }

    // Wait for the next event, which is empty after the last one.
    Event next() { return Event(dora_next_event(own_.get())); }
    // The same with a time limit: empty if none came. `ended` tells which.
    Event next(std::chrono::milliseconds timeout)
    {
        void *event = nullptr;
        int result = dora_next_event_timeout(own_.get(), timeout.count(), &event);
        detail::check(result);
        ended_ = result == 1;
        return Event(event);
    }
    bool ended() const { return ended_; }

    bool send(const char *output, Bytes data) { return send(output, data, nullptr); }
    bool send(const char *output, Bytes data, const Metadata &metadata)
    {
        return send(output, data, metadata.get());
    }
    bool send(const char *output, Bytes data, MetadataView metadata)
    {
        return send(output, data, metadata.get());
    }
    bool send(const char *output, const ArrowSchema &schema, const ArrowArray &array)
    {
        return detail::check(dora_send_arrow(own_.get(), output, &schema, &array, nullptr));
    }
    bool send(const char *output, const ArrowSchema &schema, const ArrowArray &array,
              const Metadata &metadata)
    {
        return detail::check(dora_send_arrow(own_.get(), output, &schema, &array, metadata.get()));
    }
    bool send(const char *output, const Array &array)
    {
        return send(output, array.schema, array.array);
    }
    bool send(const char *output, const Array &array, const Metadata &metadata)
    {
        return send(output, array.schema, array.array, metadata);
    }
    // Send an array of numbers as Arrow has them.
    template <typename T> bool send_values(const char *output, const T *values, std::size_t count)
    {
        detail::Borrowed<T> data(values, count);
        return send(output, data.schema, data.array);
    }
    template <typename T>
    bool send_values(const char *output, const T *values, std::size_t count, const Metadata &metadata)
    {
        detail::Borrowed<T> data(values, count);
        return send(output, data.schema, data.array, metadata);
    }
    template <typename T> bool send_values(const char *output, const std::vector<T> &values)
    {
        return send_values(output, values.data(), values.size());
    }
    template <typename T>
    bool send_values(const char *output, const std::vector<T> &values, const Metadata &metadata)
    {
        return send_values(output, values.data(), values.size(), metadata);
    }
    // Send a buffer of a whole number of T.
    template <typename T> bool send_values(const char *output, Buffer &&buffer, const Metadata &metadata)
    {
        detail::Borrowed<T> data(buffer.as<T>(), buffer.size() / sizeof(T));
        bool sent = send(output, data.schema, data.array, metadata);
        if (sent)
            buffer.data_ = nullptr;
        return sent;
    }
    Buffer buffer(std::size_t size) { return Buffer(own_.get(), size); }
    bool send(const char *output, Buffer &&buffer) { return send_buffer(output, std::move(buffer), nullptr); }
    bool send(const char *output, Buffer &&buffer, const Metadata &metadata)
    {
        return send_buffer(output, std::move(buffer), metadata.get());
    }

    // Send bytes as a request and wait for its answer. Throws ReplyError; without exceptions the event
    // is empty then. A negative time is without limit.
    Event call(const char *output, Bytes data, std::chrono::milliseconds timeout)
    {
        void *event = nullptr;
        int result = dora_call(own_.get(), output, data.data(), data.size(), nullptr,
                               timeout.count(), &event);
        return reply(result, event);
    }
    // The same with an array of any type.
    Event call(const char *output, const ArrowSchema &schema, const ArrowArray &array,
               std::chrono::milliseconds timeout)
    {
        char id[37] = "";
        Metadata metadata;
        int result = dora_new_request(own_.get(), output, metadata.get(), id);
        if (result == 0)
            result = dora_send_arrow(own_.get(), output, &schema, &array, metadata.get());
        return result < 0 ? reply(result, nullptr) : wait_reply(id, timeout);
    }
    // Wait for the reply to the id of dora_new_request or dora_new_goal; see dora_wait_reply.
    Event wait_reply(const std::string &id, std::chrono::milliseconds timeout)
    {
        void *event = nullptr;
        int result = dora_wait_reply(own_.get(), id.c_str(), timeout.count(), &event);
        return reply(result, event);
    }
    // Send bytes, or an array of any type, as a goal; return its id.
    std::string send_goal(const char *output, Bytes data)
    {
        char id[37] = "";
        Metadata metadata;
        if (detail::check(dora_new_goal(own_.get(), output, metadata.get(), id)))
            send(output, data, metadata);
        return id;
    }
    std::string send_goal(const char *output, const ArrowSchema &schema, const ArrowArray &array)
    {
        char id[37] = "";
        Metadata metadata;
        if (detail::check(dora_new_goal(own_.get(), output, metadata.get(), id)))
            send(output, schema, array, metadata);
        return id;
    }
    // Answer an event of the input `request` by `handler(event, metadata)`, which sends on `answer`
    // with that metadata. What it throws is the answer instead. Return false for other events.
    template <typename F> bool serve(const Event &event, const char *request, const char *answer, F handler)
    {
        if (!event.is_input() || event.id() != request)
            return false;
        Metadata metadata;
        if (dora_metadata_answer(metadata.get(), event.get()) < 0) {
            log("warn", dora_last_error());
            return true;
        }
#ifndef DORA_NO_EXCEPTIONS
        try {
            handler(event, metadata);
        } catch (const std::exception &error) {
            log("error", std::string("a request on input `") + request + "` failed: " + error.what());
            detail::check(dora_send_error(own_.get(), answer, event.get(), "Error", error.what()));
        }
#else
        handler(event, metadata);
        (void)answer;
#endif
        return true;
    }

    void log(std::string_view level, std::string_view message)
    {
        dora_log(own_.get(), level.data(), level.size(), message.data(), message.size());
    }
    std::string id() const { return dora_node_id(own_.get()); }
    std::string config_json() const { return detail::take(dora_node_config_json(own_.get())); }
    std::string param_json(const char *key) const
    {
        return detail::take(dora_param_json(own_.get(), key));
    }
    static std::string new_id()
    {
        char id[37];
        dora_new_id(id);
        return id;
    }
    void *get() const { return own_.get(); }

private:
    struct Taken {
        void *context;
    };
    explicit Node(Taken taken) : own_(taken.context) {}
    static Event reply(int result, void *event)
    {
        Event owned(event);
        detail::check(result);
        return result < 0 ? Event(nullptr) : std::move(owned);
    }
    bool send(const char *output, Bytes data, const DoraMetadata *metadata)
    {
        return detail::check(
            dora_send_bytes(own_.get(), output, data.data(), data.size(), metadata));
    }
    bool send_buffer(const char *output, Buffer &&buffer, const DoraMetadata *metadata)
    {
        void *data = std::exchange(buffer.data_, nullptr);
        return detail::check(dora_send_buffer(own_.get(), output, data, buffer.size_, metadata));
    }
    struct Free {
        void operator()(void *context) const { free_dora_context(context); }
    };
    std::unique_ptr<void, Free> own_;
    bool ended_ = false;
};

// A goal that an ActionServer has; it ends with exactly one result.
class ServedGoal {
public:
    const Event &event() const { return event_; }
    const std::string &id() const { return id_; }
    // True if the client wants it to end, or the node is being stopped: finish it as canceled.
    bool canceled() const { return canceled_; }
    bool ended() const { return ended_; }
    // Metadata for feedback that is sent with one of Node's functions.
    Metadata metadata() const
    {
        Metadata marked;
        marked.answer(event_);
        return marked;
    }

private:
    friend class ActionServer;
    ServedGoal(Event event, std::string id) : event_(std::move(event)), id_(std::move(id)) {}
    Event event_;
    std::string id_;
    bool canceled_ = false, ended_ = false;
};

// The goals of one input: it takes goals and cancels from the node's events. Goals that have no result
// yet when it is destroyed are canceled.
class ActionServer {
public:
    // `cancel` is an input, or empty.
    ActionServer(Node &node, std::string goal, std::string result, std::string cancel = "")
        : node_(node), goal_(std::move(goal)), result_(std::move(result)), cancel_(std::move(cancel)) {}
    ActionServer(const ActionServer &) = delete;
    ActionServer &operator=(const ActionServer &) = delete;
    ~ActionServer()
    {
        for (ServedGoal &goal : goals_)
            if (!goal.ended_)
                end(goal, "canceled", {});
    }

    // Take a goal or cancel, which is moved from; return false for other events. A STOP cancels all.
    bool handle(Event &event)
    {
        goals_.remove_if([](const ServedGoal &goal) { return goal.ended_; });
        if (event.is_stop())
            for (ServedGoal &goal : goals_)
                goal.canceled_ = true;
        if (!event.is_input() || (event.id() != goal_ && (cancel_.empty() || event.id() != cancel_)))
            return false;
        std::string id(event.metadata().get_string("goal_id").value_or(""));
        if (id.empty())
            node_.log("warn", "a message on input `" + std::string(event.id()) +
                                  "` has no goal_id in its metadata: it is ignored");
        else if (event.id() == goal_)
            begin(std::move(event), std::move(id));
        else
            cancel(id);
        return true;
    }
    // All goals without a result, oldest first. Finish some while you go through them.
    std::list<ServedGoal> &goals()
    {
        goals_.remove_if([](const ServedGoal &goal) { return goal.ended_; });
        return goals_;
    }
    // Send the result of a goal, bytes or an array of any type: `succeeded`, `aborted` or `canceled`.
    // A second one is ignored.
    bool finish(ServedGoal &goal, const char *status, Bytes data = {})
    {
        return goal.ended_ || detail::check(end(goal, status, data));
    }
    bool finish(ServedGoal &goal, const char *status, const ArrowSchema &schema,
                const ArrowArray &array)
    {
        if (goal.ended_)
            return true;
        Metadata metadata = mark(goal, status);
        return detail::check(dora_send_arrow(node_.get(), result_.c_str(), &schema, &array,
                                             metadata.get()));
    }

private:
    // Return the metadata of a goal's result.
    static Metadata mark(ServedGoal &goal, const char *status)
    {
        goal.ended_ = true;
        Metadata metadata;
        dora_metadata_answer(metadata.get(), goal.event_.get());
        dora_metadata_set_string(metadata.get(), "goal_status", status);
        return metadata;
    }
    int end(ServedGoal &goal, const char *status, Bytes data)
    {
        Metadata metadata = mark(goal, status);
        return dora_send_bytes(node_.get(), result_.c_str(), data.data(), data.size(),
                               metadata.get());
    }
    void begin(Event event, std::string id)
    {
        for (const ServedGoal &goal : goals_)
            if (goal.id_ == id) {
                node_.log("warn", "goal " + id + " came again; it is ignored");
                return;
            }
        goals_.push_back(ServedGoal(std::move(event), id));
        // Its cancel, on another input, may have overtaken it.
        for (auto early = early_.begin(); early != early_.end(); ++early)
            if (*early == id) {
                goals_.back().canceled_ = true;
                early_.erase(early);
                return;
            }
    }
    void cancel(const std::string &id)
    {
        for (ServedGoal &goal : goals_)
            if (goal.id_ == id) {
                goal.canceled_ = true;
                return;
            }
        early_.push_back(id);
        if (early_.size() > 1000) {
            node_.log("warn", "a cancel names goal " + early_.front() +
                                  ", which is unknown or has ended; it is ignored");
            early_.pop_front();
        }
    }
    Node &node_;
    std::string goal_, result_, cancel_;
    std::list<ServedGoal> goals_;
    std::deque<std::string> early_;
};

} // namespace dora
