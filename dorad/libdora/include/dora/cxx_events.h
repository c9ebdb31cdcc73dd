// The events and the context of dora-node-api.h, which includes this.

#pragma once

#include "cxx_types.h"
#include "node_api.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <utility>

enum class DoraEventType : std::uint8_t {
    Stop,
    Input,
    InputClosed,
    Error,
    Unknown,
    AllInputsClosed,
    Empty,
    Timeout,
    NodeFailed,
    Reload,
};

enum class DoraPatternStatus : std::uint8_t {
    Matched,
    Timeout,
    ServerRestarted,
    StreamEnded,
    StreamError,
    InvalidArgument,
};

class DoraEvent {
public:
    // An event that is this object's from now on, or why there is none.
    explicit DoraEvent(void *event) : own_(event, free_dora_event) {}
    explicit DoraEvent(DoraEventType why) : why_(why), own_(nullptr, free_dora_event) {}
    void *get() const { return own_.get(); }
    DoraEventType type() const
    {
        static const std::pair<const char *, DoraEventType> TYPES[] = {
            {"STOP", DoraEventType::Stop},
            {"INPUT", DoraEventType::Input},
            {"INPUT_CLOSED", DoraEventType::InputClosed},
            {"ERROR", DoraEventType::Error},
            {"NODE_FAILED", DoraEventType::NodeFailed},
            {"RELOAD", DoraEventType::Reload},
        };
        if (!own_)
            return why_;
        for (const auto &[name, type] : TYPES)
            if (std::strcmp(dora_event_name(get()), name) == 0)
                return type;
        return DoraEventType::Unknown;
    }

private:
    DoraEventType why_ = DoraEventType::Empty;
    std::unique_ptr<void, void (*)(void *)> own_;
};

// The context of a node, and whether a thread uses it.
struct DoraContext {
    explicit DoraContext(void *context) : own(context, free_dora_context) {}
    std::unique_ptr<void, void (*)(void *)> own;
    std::atomic_flag busy = ATOMIC_FLAG_INIT;
};

// Uses a context as long as it lives. Throws if another thread does.
class DoraUse {
public:
    explicit DoraUse(const std::shared_ptr<DoraContext> &context) : context_(context)
    {
        if (context_->busy.test_and_set(std::memory_order_acquire))
            throw rust::Error("another thread uses this node: one thread at a time may");
    }
    ~DoraUse() { context_->busy.clear(std::memory_order_release); }
    DoraUse(const DoraUse &) = delete;
    DoraUse &operator=(const DoraUse &) = delete;
    void *get() const { return context_->own.get(); }

private:
    std::shared_ptr<DoraContext> context_;
};

class Events {
public:
    explicit Events(std::shared_ptr<DoraContext> context) : context_(std::move(context)) {}
    rust::Box<DoraEvent> next() { return next(-1, DoraEventType::AllInputsClosed); }
    // Return the next event; after `timeout_ms`, which is negative for never, one that says `late`.
    rust::Box<DoraEvent> next(std::int64_t timeout_ms, DoraEventType late)
    {
        if (!kept_.empty()) {
            rust::Box<DoraEvent> oldest = std::move(kept_.front());
            kept_.pop_front();
            return oldest;
        }
        return receive(timeout_ms, late);
    }
    bool is_empty()
    {
        if (kept_.empty())
            keep(receive(0, DoraEventType::Empty));
        return kept_.empty();
    }
    std::deque<rust::Box<DoraEvent>> drain()
    {
        while (!is_empty() && kept_.size() < MAX_KEPT && keep(receive(0, DoraEventType::Empty)))
            continue;
        if (!kept_.empty() && kept_.back()->get() == nullptr)
            kept_.pop_back(); // the end is no event; it is found again
        return std::exchange(kept_, {});
    }
    // Wait for an event; others are kept for `next`. Return why there is none, or the event.
    template <typename Matches>
    rust::Box<DoraEvent> wait(std::uint64_t timeout_ms, Matches matches, DoraPatternStatus &status)
    {
        using Clock = std::chrono::steady_clock;
        const auto limit = std::chrono::milliseconds(std::min<std::uint64_t>(timeout_ms, YEAR_MS));
        const auto deadline = Clock::now() + limit;
        for (auto each = kept_.begin(); each != kept_.end(); ++each)
            if (matches(**each, status)) {
                rust::Box<DoraEvent> event = std::move(*each);
                kept_.erase(each);
                return event;
            }
        for (;;) {
            const auto left =
                std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
            rust::Box<DoraEvent> event =
                receive(std::max<std::int64_t>(left, 0), DoraEventType::Timeout);
            const DoraEventType type = event->type();
            status = DoraPatternStatus::Timeout;
            if (type == DoraEventType::Timeout && left > 0)
                continue; // a signal was handled
            if (type == DoraEventType::Timeout || matches(*event, status))
                return event;
            const bool ends = type == DoraEventType::Stop || type == DoraEventType::AllInputsClosed;
            const bool orphaned = status == DoraPatternStatus::ServerRestarted;
            keep(std::move(event));
            if (ends || orphaned) {
                status = ends ? DoraPatternStatus::StreamEnded : status;
                return rust::Box<DoraEvent>(DoraEvent(ends ? DoraEventType::AllInputsClosed
                                                           : DoraEventType::Empty));
            }
        }
    }

private:
    static constexpr std::size_t MAX_KEPT = 10000;
    static constexpr std::uint64_t YEAR_MS = std::uint64_t{365} * 24 * 3600 * 1000;

    rust::Box<DoraEvent> receive(std::int64_t timeout_ms, DoraEventType late)
    {
        const DoraUse use(context_);
        void *event = nullptr;
        if (timeout_ms < 0)
            event = dora_next_event(use.get());
        else if (const int result = dora_next_event_timeout(use.get(), timeout_ms, &event); result < 0)
            throw rust::Error(dora_last_error());
        else if (result == 0 && event == nullptr)
            return rust::Box<DoraEvent>(DoraEvent(late));
        return rust::Box<DoraEvent>(event != nullptr ? DoraEvent(event)
                                                     : DoraEvent(DoraEventType::AllInputsClosed));
    }
    // Keep an event, if it is one; of too many, the oldest is dropped.
    bool keep(rust::Box<DoraEvent> event)
    {
        if (event->get() == nullptr && event->type() != DoraEventType::AllInputsClosed)
            return false;
        if (kept_.size() == MAX_KEPT) {
            static constexpr char TEXT[] = "more than 10000 events came while the node waited for a "
                                           "reply; the oldest is dropped";
            const DoraUse use(context_);
            dora_log(use.get(), "warn", 4, TEXT, sizeof TEXT - 1);
            kept_.pop_front();
        }
        const bool more = event->get() != nullptr;
        kept_.push_back(std::move(event));
        return more;
    }

    std::shared_ptr<DoraContext> context_;
    std::deque<rust::Box<DoraEvent>> kept_;
};

class DrainedEvents {
public:
    explicit DrainedEvents(std::deque<rust::Box<DoraEvent>> events) : events_(std::move(events)) {}
    std::size_t size() const { return events_.size(); }
    rust::Box<DoraEvent> next()
    {
        if (events_.empty())
            return rust::Box<DoraEvent>(DoraEvent(DoraEventType::Empty));
        rust::Box<DoraEvent> oldest = std::move(events_.front());
        events_.pop_front();
        return oldest;
    }

private:
    std::deque<rust::Box<DoraEvent>> events_;
};

class OutputSender {
public:
    explicit OutputSender(std::shared_ptr<DoraContext> context) : context_(std::move(context)) {}
    // Call a function with the context; return the text of its error, empty without one.
    template <typename Call> rust::String use(Call call) const
    {
        try {
            const DoraUse use(context_);
            return call(use.get()) < 0 ? dora_last_error() : "";
        } catch (const rust::Error &error) {
            return error.what();
        }
    }
    rust::String json(char *(*read)(const void *)) const
    {
        const DoraUse use(context_);
        const std::unique_ptr<char, void (*)(void *)> text(read(use.get()), std::free);
        if (text == nullptr)
            throw rust::Error("the daemon has not sent it");
        return text.get();
    }

private:
    std::shared_ptr<DoraContext> context_;
};
