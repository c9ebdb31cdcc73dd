// Adds up the distance that the wheels travel.

#include <dora/node.hpp>

#include <cmath>
#include <cstdio>
#include <iostream>
#include <string>

class Odometry {
public:
    explicit Odometry(double diameter) : metres_per_step_(diameter * M_PI / 1000) {}

    void add(const dora::Event &event)
    {
        dora::Array wheels = event.arrow();
        const std::int32_t *steps = wheels.values<std::int32_t>();
        if (steps == nullptr || wheels.size() != 2)
            throw std::runtime_error("the encoder sends something else");
        std::int64_t number = event.metadata().get_int("number").value_or(expected_);
        missing_ += number - expected_;
        expected_ = number + 1;
        metres_ += (steps[0] + steps[1]) / 2.0 * metres_per_step_;
    }
    void print() const
    {
        std::printf("%ld ticks of the wheels, %.2f m, %ld missing\n", (long)expected_, metres_,
                    (long)missing_);
    }

private:
    double metres_per_step_, metres_ = 0;
    std::int64_t expected_ = 0, missing_ = 0;
};

int main()
try {
    dora::Node node;
    Odometry odometry(std::stod(node.param_json("diameter")));
    while (dora::Event event = node.next())
        if (event.is_input())
            odometry.add(event);
    odometry.print();
} catch (const std::exception &error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
