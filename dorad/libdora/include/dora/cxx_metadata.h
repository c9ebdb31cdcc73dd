// The metadata of dora-node-api.h, which includes this.

#pragma once

#include "cxx_types.h"
#include "node_api.h"

#include <cstdint>
#include <cstdio>
#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

enum class MetadataValueType : std::uint8_t {
    Bool,
    Integer,
    Float,
    String,
    ListInt,
    ListFloat,
    ListString,
    Timestamp,
};

class Metadata {
public:
    using Key = rust::Str;

    Metadata() = default;
    // Those of an input's event.
    explicit Metadata(void *event) : timestamp_(read_dora_input_timestamp(event))
    {
        const DoraMetadata *from = dora_event_metadata(event);
        if (from == nullptr)
            throw rust::Error(dora_last_error());
        for (std::size_t at = 0; at < dora_metadata_count(from); at++)
            read(from, dora_metadata_key(from, at));
    }

    // When the message was sent: seconds in the upper 32 bits, their fraction in the lower ones.
    std::uint64_t timestamp() const { return timestamp_; }
    bool get_bool(Key key) const { return get<bool>(key, "bool"); }
    double get_float(Key key) const { return get<double>(key, "float"); }
    std::int64_t get_int(Key key) const { return get<std::int64_t>(key, "integer"); }
    rust::String get_str(Key key) const { return get<std::string>(key, "string"); }
    rust::Vec<std::int64_t> get_list_int(Key key) const { return get<Ints>(key, "list<int>"); }
    rust::Vec<double> get_list_float(Key key) const { return get<Floats>(key, "list<float>"); }
    rust::Vec<rust::String> get_list_string(Key key) const
    {
        return get<Strings>(key, "list<string>");
    }
    std::int64_t get_timestamp(Key key) const { return get<Time>(key, "timestamp").nanos; }
    rust::String get_json(Key key) const
    {
        return std::visit([](const auto &value) { return json(value); }, find(key));
    }
    rust::String to_json() const
    {
        std::string text = "{\"timestamp\":" + std::to_string(timestamp_) + ",\"parameters\":{";
        const char *comma = "";
        for (const auto &[key, value] : values_) {
            text += comma + json(key) + ":{\"" + NAMES[value.index()] + "\":" +
                    std::visit([](const auto &each) { return json(each); }, value) + "}";
            comma = ",";
        }
        return text + "}}";
    }
    rust::Vec<rust::String> list_keys() const
    {
        rust::Vec<rust::String> keys;
        for (const auto &each : values_)
            keys.emplace_back(each.first);
        return keys;
    }
    MetadataValueType type(Key key) const
    {
        return static_cast<MetadataValueType>(find(key).index());
    }
    void set_bool(Key key, bool value) { set(key, value); }
    void set_int(Key key, std::int64_t value) { set(key, value); }
    void set_float(Key key, double value) { set(key, value); }
    void set_string(Key key, rust::String value) { set(key, std::string(value)); }
    void set_list_int(Key key, rust::Vec<std::int64_t> value) { set(key, std::move(value)); }
    void set_list_float(Key key, rust::Vec<double> value) { set(key, std::move(value)); }
    void set_list_string(Key key, rust::Vec<rust::String> value) { set(key, std::move(value)); }
    // In ns since 1970; messages carry microseconds.
    void set_timestamp(Key key, std::int64_t value) { set(key, Time{value}); }
    void set_request_id(rust::String value) { set_string("request_id", std::move(value)); }
    rust::String request_id() const { return get_str("request_id"); }
    void set_goal_id(rust::String value) { set_string("goal_id", std::move(value)); }
    rust::String goal_id() const { return get_str("goal_id"); }
    void set_goal_status(rust::String value) { set_string("goal_status", std::move(value)); }
    rust::String goal_status() const { return get_str("goal_status"); }

    struct Free {
        void operator()(DoraMetadata *metadata) const { dora_metadata_free(metadata); }
    };
    // As node_api.h has them.
    std::unique_ptr<DoraMetadata, Free> plain() const
    {
        std::unique_ptr<DoraMetadata, Free> into(dora_metadata_new());
        for (const auto &[key, value] : values_)
            if (std::visit([&](const auto &each) { return write(into.get(), key.c_str(), each); },
                           value) < 0)
                throw rust::Error(dora_last_error());
        return into;
    }

private:
    struct Time {
        std::int64_t nanos;
    };
    using Ints = rust::Vec<std::int64_t>;
    using Floats = rust::Vec<double>;
    using Strings = rust::Vec<rust::String>;
    // In the order of MetadataValueType.
    using Value = std::variant<bool, std::int64_t, double, std::string, Ints, Floats, Strings, Time>;
    static constexpr const char *NAMES[] = {"Bool",    "Integer",   "Float",      "String",
                                            "ListInt", "ListFloat", "ListString", "Timestamp"};

    void read(const DoraMetadata *from, const char *key)
    {
        bool truth = false;
        std::int64_t number = 0;
        double real = 0;
        switch (dora_metadata_type(from, key)) {
        case DORA_METADATA_BOOL:
            dora_metadata_get_bool(from, key, &truth);
            values_[key] = truth;
            break;
        case DORA_METADATA_INT:
            dora_metadata_get_int(from, key, &number);
            values_[key] = number;
            break;
        case DORA_METADATA_FLOAT:
            dora_metadata_get_float(from, key, &real);
            values_[key] = real;
            break;
        case DORA_METADATA_STRING:
            values_[key] = std::string(dora_metadata_get_string(from, key));
            break;
        case DORA_METADATA_TIME:
            dora_metadata_get_time(from, key, &number);
            values_[key] = Time{number * 1000};
            break;
        default:
            read_list(from, key, dora_metadata_type(from, key));
        }
    }
    void read_list(const DoraMetadata *from, const char *key, enum DoraMetadataType type)
    {
        const std::size_t count = dora_metadata_length(from, key);
        Ints ints(type == DORA_METADATA_INTS ? count : 0);
        Floats floats(type == DORA_METADATA_FLOATS ? count : 0);
        Strings strings;
        for (std::size_t at = 0; at < ints.size(); at++)
            dora_metadata_get_int_at(from, key, at, &ints[at]);
        for (std::size_t at = 0; at < floats.size(); at++)
            dora_metadata_get_float_at(from, key, at, &floats[at]);
        for (std::size_t at = 0; type == DORA_METADATA_STRINGS && at < count; at++)
            strings.emplace_back(dora_metadata_get_string_at(from, key, at));
        if (type == DORA_METADATA_INTS)
            values_[key] = std::move(ints);
        else if (type == DORA_METADATA_FLOATS)
            values_[key] = std::move(floats);
        else if (type == DORA_METADATA_STRINGS)
            values_[key] = std::move(strings);
    }

    static int write(DoraMetadata *into, const char *key, bool value)
    {
        return dora_metadata_set_bool(into, key, value);
    }
    static int write(DoraMetadata *into, const char *key, std::int64_t value)
    {
        return dora_metadata_set_int(into, key, value);
    }
    static int write(DoraMetadata *into, const char *key, double value)
    {
        return dora_metadata_set_float(into, key, value);
    }
    static int write(DoraMetadata *into, const char *key, const std::string &value)
    {
        return dora_metadata_set_string(into, key, value.c_str());
    }
    static int write(DoraMetadata *into, const char *key, const Ints &value)
    {
        return dora_metadata_set_ints(into, key, value.data(), value.size());
    }
    static int write(DoraMetadata *into, const char *key, const Floats &value)
    {
        return dora_metadata_set_floats(into, key, value.data(), value.size());
    }
    static int write(DoraMetadata *into, const char *key, const Strings &value)
    {
        std::vector<const char *> texts;
        for (const rust::String &each : value)
            texts.push_back(each.c_str());
        return dora_metadata_set_strings(into, key, texts.data(), texts.size());
    }
    static int write(DoraMetadata *into, const char *key, Time value)
    {
        return dora_metadata_set_time(into, key, micros(value));
    }
    static std::int64_t micros(Time time)
    {
        return time.nanos / 1000 - (time.nanos % 1000 < 0 ? 1 : 0);
    }

    static std::string json(bool value) { return value ? "true" : "false"; }
    static std::string json(std::int64_t value) { return std::to_string(value); }
    static std::string json(double value)
    {
        char text[32];
        std::snprintf(text, sizeof text, "%.17g", value);
        return value - value != 0 ? "null" : text; // of infinity and NaN
    }
    static std::string json(const rust::String &value) { return json(std::string(value)); }
    static std::string json(const std::string &value)
    {
        std::string text = "\"";
        for (const char each : value) {
            char escaped[8];
            std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned char>(each));
            if (each == '"' || each == '\\')
                text += '\\';
            if (static_cast<unsigned char>(each) < ' ')
                text += escaped;
            else
                text += each;
        }
        return text + "\"";
    }
    static std::string json(Time value)
    {
        char text[40];
        const std::int64_t whole = micros(value), rest = (whole % 1000000 + 1000000) % 1000000;
        const std::time_t seconds = static_cast<std::time_t>((whole - rest) / 1000000);
        std::tm parts{};
        gmtime_r(&seconds, &parts);
        const std::size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
        std::snprintf(text + size, sizeof text - size, ".%06dZ", static_cast<int>(rest));
        return json(std::string(text));
    }
    template <typename T> static std::string json(const rust::Vec<T> &values)
    {
        std::string text = "[";
        for (const T &each : values)
            text += (text.size() > 1 ? "," : "") + json(each);
        return text + "]";
    }

    const Value &find(Key key) const
    {
        const auto found = values_.find(std::string(key));
        if (found == values_.end())
            throw rust::Error("metadata has no key '" + std::string(key) + "'");
        return found->second;
    }
    template <typename T> const T &get(Key key, const char *expected) const
    {
        const Value &value = find(key);
        if (!std::holds_alternative<T>(value))
            throw rust::Error("metadata key '" + std::string(key) + "' has type " +
                              NAMES[value.index()] + ", expected " + expected);
        return std::get<T>(value);
    }
    template <typename T> void set(Key key, T value)
    {
        values_[std::string(key)] = std::move(value);
    }

    std::uint64_t timestamp_ = 0;
    std::map<std::string, Value> values_;
};

inline rust::Box<Metadata> new_metadata()
{
    return rust::Box<Metadata>(Metadata());
}
