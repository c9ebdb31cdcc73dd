// A point cloud as an Arrow struct: x and y as 32-bit floats, and a label.

#pragma once

#include <dora/node.hpp>

#include <string>
#include <vector>

class Cloud {
public:
    void add(float x, float y, const std::string &label)
    {
        x_.push_back(x);
        y_.push_back(y);
        labels_ += label;
        ends_.push_back(static_cast<std::int32_t>(labels_.size()));
    }
    // Send the points; the arrays are borrowed until this returns.
    void send(dora::Node &node, const char *output)
    {
        ArrowSchema x = column("f", "x"), y = column("f", "y"), label = column("u", "label");
        ArrowSchema *fields[] = {&x, &y, &label};
        ArrowSchema point = column("+s", "");
        point.n_children = 3;
        point.children = fields;
        const void *of_x[] = {nullptr, x_.data()}, *of_y[] = {nullptr, y_.data()};
        const void *of_label[] = {nullptr, ends_.data(), labels_.data()}, *of_point[] = {nullptr};
        ArrowArray xs = values(2, of_x), ys = values(2, of_y), labels = values(3, of_label);
        ArrowArray *columns[] = {&xs, &ys, &labels};
        ArrowArray points = values(1, of_point);
        points.n_children = 3;
        points.children = columns;
        node.send(output, point, points);
    }

private:
    static ArrowSchema column(const char *format, const char *name)
    {
        ArrowSchema schema = {};
        schema.format = format;
        schema.name = name;
        schema.release = [](ArrowSchema *own) { own->release = nullptr; };
        return schema;
    }
    ArrowArray values(std::int64_t count, const void **buffers) const
    {
        ArrowArray array = {};
        array.length = static_cast<std::int64_t>(x_.size());
        array.n_buffers = count;
        array.buffers = buffers;
        array.release = [](ArrowArray *own) { own->release = nullptr; };
        return array;
    }
    std::vector<float> x_, y_;
    std::vector<std::int32_t> ends_{0}; // a text ends where the next one begins
    std::string labels_;
};
