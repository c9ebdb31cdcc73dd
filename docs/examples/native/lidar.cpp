// Simulates a lidar in a corridor: distances to the wall at its end, as seen from the last pose.

#include <dora/node.hpp>

#include <cmath>
#include <iostream>

constexpr std::size_t RAYS = 360;
constexpr double WALL_M = 10;

int main()
try {
    dora::Node node;
    double position = 0;
    while (dora::Event event = node.next()) {
        if (!event.is_input())
            continue;
        if (event.id() == "pose") {
            dora::Array pose = event.arrow();
            if (const double *values = pose.values<double>(); values != nullptr && pose.size() > 0)
                position = values[0];
            continue;
        }
        dora::Buffer scan = node.buffer(RAYS * sizeof(float));
        for (std::size_t ray = 0; ray < RAYS; ray++) {
            double ahead = std::cos(static_cast<double>(ray) * 2 * M_PI / RAYS);
            scan.as<float>()[ray] =
                ahead > 0.01 ? static_cast<float>((WALL_M - position) / ahead) : INFINITY;
        }
        node.send_values<float>("scan", std::move(scan), dora::Metadata().set("rays", int{RAYS}));
    }
} catch (const dora::Error &error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
