// Doubles floats; with any argument it sends them in buffers of shared memory.

#include <dora/node.hpp>

#include <iostream>

int main(int count, char **)
{
    dora::Node node;
    while (dora::Event event = node.next()) {
        if (!event.is_input())
            continue;
        dora::Array array = event.arrow();
        const double *values = array.values<double>();
        if (values == nullptr) {
            node.log("warn", "not doubles");
            continue;
        }
        dora::Metadata metadata;
        metadata.set("frame", event.metadata().get_string("frame") ? "known" : "unknown")
            .set("sizes", std::vector<std::int64_t>{static_cast<std::int64_t>(array.size())});
        if (count > 1) {
            dora::Buffer buffer = node.buffer(array.size() * sizeof(double));
            for (std::size_t at = 0; at < array.size(); at++)
                buffer.as<double>()[at] = 2 * values[at];
            node.send("out", std::move(buffer), metadata);
        } else {
            std::vector<double> doubled(values, values + array.size());
            for (double &value : doubled)
                value *= 2;
            node.send("out", doubled, metadata);
        }
        try {
            node.send("out", dora::Bytes(nullptr, 1));
        } catch (const dora::Error &error) {
            std::cout << "refused: " << error.what() << std::endl;
        }
    }
}
