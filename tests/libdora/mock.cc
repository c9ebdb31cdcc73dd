// Tests of a node in C++ by dora/testing.hpp.

#include <dora/testing.hpp>

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                                            \
    do                                                                                              \
        if (!(condition)) {                                                                         \
            std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                            \
            std::exit(1);                                                                           \
        }                                                                                           \
    while (false)

// The node under test.
static int run(dora::Node &node)
{
    int count = 0;
    while (dora::Event event = node.next()) {
        if (event.is_stop())
            node.send("last", event.id());
        if (!event.is_input())
            continue;
        count++;
        if (event.id() == "numbers") {
            dora::Array numbers = event.arrow();
            std::vector<double> doubled;
            for (std::size_t at = 0; at < numbers.size(); at++)
                doubled.push_back(2 * numbers.values<double>()[at]);
            node.send_values("doubled", doubled, dora::Metadata().set("gain", node.param_json("gain")));
        } else if (event.id() == "image") {
            dora::Buffer buffer = node.buffer(event.data().size());
            std::memcpy(buffer.data(), event.data().data(), buffer.size());
            node.send("copy", std::move(buffer), dora::Metadata().set("size", 3));
        } else if (event.id() == "ask") {
            try {
                dora::Event answer = node.call("question", "why", std::chrono::seconds(1));
                node.send("told", answer.data());
            } catch (const dora::ReplyError &error) {
                node.send("told", std::string("code ") + std::to_string(error.code));
            }
        } else
            node.serve(event, "question", "answer", [&](const dora::Event &, dora::Metadata &answer) {
                if (event.data().empty())
                    throw std::runtime_error("nothing asked");
                node.send("answer", "because", answer);
            });
    }
    return count;
}

int main()
{
    dora::testing::MockNode mock("lidar");
    CHECK(mock.node().id() == "lidar");
    mock.param("gain", "2.5").input_values<double>("numbers", {1.5, 2.5});
    mock.event("PARAM_UPDATE", "gain", "3").input_values<double>("numbers", {});
    mock.input("image", std::string(100000, 'x'), dora::Metadata().set("a", 1));
    mock.input("ask", "").input("ask", "").input("ask", "");
    mock.reply("question", "so").reply("question", "", dora::Metadata().set("request_error", "no"));
    mock.input("question", "q", dora::Metadata().set("request_id", "r-1"));
    mock.input("question", "", dora::Metadata().set("request_id", "r-2"));
    CHECK(run(mock.node()) == 8);

    dora::Event sent = mock.sent("doubled");
    dora::Array doubled = sent.arrow();
    CHECK(doubled.size() == 2 && doubled.values<double>()[1] == 5.0);
    CHECK(sent.metadata().get_string("gain") == "2.5");
    CHECK(mock.sent("doubled").metadata().get_string("gain") == "3");
    CHECK(!mock.sent("doubled"));
    sent = mock.sent("copy");
    CHECK(sent.data().size() == 100000 && sent.data().data()[99999] == 'x');
    CHECK(sent.metadata().get_int("size") == 3);
    CHECK(mock.sent("told").data().text() == "so");
    CHECK(mock.sent("told").data().text() == "code -6");
    CHECK(mock.sent("told").data().text() == "code -3");
    sent = mock.sent("answer");
    CHECK(sent.data().text() == "because" && sent.metadata().get_string("request_id") == "r-1");
    sent = mock.sent("answer");
    CHECK(sent.metadata().get_string("request_error") == "nothing asked");
    CHECK(mock.sent("last").data().text() == "ALL_INPUTS_CLOSED");
    std::puts("all right");
}
