// Types of cxx, which dora-node-api.h has in its signatures; each holds one of the standard library.

#pragma once

#include <cstddef>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rust {
inline namespace cxxbridge1 {

class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

class String {
public:
    String() = default;
    String(std::string text) : text_(std::move(text)) {}
    String(const char *text) : text_(text) {}
    String(const char *text, std::size_t size) : text_(text, size) {}
    explicit operator std::string() const { return text_; }
    const char *data() const noexcept { return text_.data(); }
    const char *c_str() const noexcept { return text_.c_str(); }
    std::size_t size() const noexcept { return text_.size(); }
    std::size_t length() const noexcept { return text_.size(); }
    bool empty() const noexcept { return text_.empty(); }
    auto begin() const noexcept { return text_.begin(); }
    auto end() const noexcept { return text_.end(); }
    bool operator==(const String &other) const noexcept { return text_ == other.text_; }
    bool operator!=(const String &other) const noexcept { return text_ != other.text_; }
    bool operator<(const String &other) const noexcept { return text_ < other.text_; }
    friend std::ostream &operator<<(std::ostream &to, const String &own) { return to << own.text_; }

private:
    std::string text_;
};

class Str {
public:
    Str() = default;
    Str(const std::string &text) : text_(text) {}
    Str(const String &text) : text_(text.data(), text.size()) {}
    Str(const char *text) : text_(text) {}
    Str(const char *text, std::size_t size) : text_(text, size) {}
    explicit operator std::string() const { return std::string(text_); }
    const char *data() const noexcept { return text_.data(); }
    std::size_t size() const noexcept { return text_.size(); }
    std::size_t length() const noexcept { return text_.size(); }
    bool empty() const noexcept { return text_.empty(); }
    auto begin() const noexcept { return text_.begin(); }
    auto end() const noexcept { return text_.end(); }
    bool operator==(const Str &other) const noexcept { return text_ == other.text_; }
    bool operator!=(const Str &other) const noexcept { return text_ != other.text_; }
    friend std::ostream &operator<<(std::ostream &to, const Str &own) { return to << own.text_; }

private:
    std::string_view text_;
};

template <typename T> class Vec : public std::vector<T> {
public:
    using std::vector<T>::vector;
    void truncate(std::size_t size)
    {
        if (size < this->size())
            this->erase(this->begin() + static_cast<std::ptrdiff_t>(size), this->end());
    }
};

template <typename T> class Slice {
public:
    Slice() = default;
    Slice(T *data, std::size_t size) : data_(data), size_(size) {}
    template <typename C> explicit Slice(C &items) : data_(items.data()), size_(items.size()) {}
    T *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    std::size_t length() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    T &operator[](std::size_t at) const noexcept { return data_[at]; }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + size_; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

template <typename T> class Box {
public:
    explicit Box(T &&value) : own_(std::make_unique<T>(std::move(value))) {}
    template <typename... Args> static Box in_place(Args &&...args)
    {
        return Box(T(std::forward<Args>(args)...));
    }
    T *operator->() noexcept { return own_.get(); }
    const T *operator->() const noexcept { return own_.get(); }
    T &operator*() noexcept { return *own_; }
    const T &operator*() const noexcept { return *own_; }

private:
    std::unique_ptr<T> own_;
};

} // namespace cxxbridge1
} // namespace rust
