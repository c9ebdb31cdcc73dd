// Prints the bounds of point clouds, and passes them on.

#include <dora/node.hpp>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string_view>

struct Range {
    float low, high;
};

static Range range(const ArrowArray &column, std::int64_t offset, std::size_t count)
{
    const float *values = static_cast<const float *>(column.buffers[1]) + column.offset + offset;
    auto [low, high] = std::minmax_element(values, values + count);
    return {*low, *high};
}

int main()
try {
    dora::Node node;
    while (dora::Event event = node.next()) {
        if (!event.is_input())
            continue;
        dora::Array points = event.arrow();
        const ArrowSchema &type = points.schema;
        if (std::string_view(type.format) != "+s" || type.n_children < 2 || points.size() == 0 ||
            std::string_view(type.children[0]->format) != "f" ||
            std::string_view(type.children[1]->format) != "f") {
            node.log("error", "these are no points");
            continue;
        }
        ArrowArray **columns = points.array.children;
        Range x = range(*columns[0], points.array.offset, points.size());
        Range y = range(*columns[1], points.array.offset, points.size());
        std::printf("%zu points from (%.1f, %.1f) to (%.1f, %.1f)\n", points.size(), x.low, y.low,
                    x.high, y.high);
        node.send("points", points);
    }
} catch (const dora::Error &error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
