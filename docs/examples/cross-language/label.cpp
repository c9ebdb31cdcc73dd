// Passes arrays on as they are, and adds to their metadata.

#include <dora/node.hpp>

#include <iostream>

int main()
try {
    dora::Node node;
    while (dora::Event event = node.next()) {
        if (!event.is_input())
            continue;
        dora::Array numbers = event.arrow();
        dora::Metadata metadata;
        std::string languages;
        for (const std::string &language : event.metadata().get_strings("languages"))
            languages += language + ", ";
        metadata.set("languages", (languages + "c++").c_str());
        metadata.set("count", static_cast<std::int64_t>(numbers.size()));
        node.send("numbers", numbers, metadata);
    }
} catch (const dora::Error &error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
