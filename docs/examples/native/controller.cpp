#include "controller.hpp"

#include <iostream>

int main()
try {
    dora::Node node;
    Controller(node).run();
} catch (const dora::Error &error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
