// Sends a thousand points on a circle.

#include "cloud.hpp"

#include <cmath>
#include <iostream>

int main()
try {
    dora::Node node;
    Cloud cloud;
    for (int at = 0; at < 1000; at++) {
        double angle = at * 2 * M_PI / 1000;
        cloud.add(static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle)), "edge");
    }
    cloud.send(node, "points");
} catch (const dora::Error &error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
