// Sends how far two wheels have turned, fifty times: a tenth of a turn each time.

#include <dora/node.hpp>

#include <iostream>

constexpr int TICKS = 50;

int main()
try {
    dora::Node node;
    int sent = 0;
    while (dora::Event event = node.next()) {
        if (!event.is_input())
            continue;
        std::vector<std::int32_t> steps{100, 100}; // of 1000 in a turn
        node.send_values("wheels", steps, dora::Metadata().set("number", std::int64_t{sent}));
        if (++sent == TICKS)
            break;
    }
} catch (const dora::Error &error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
