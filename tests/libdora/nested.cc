// Passes arrays of any type on as nested.c does, by calls and goals of dora/node.hpp.

#include <dora/node.hpp>

#include <cstdio>

using std::chrono::seconds;

int main(int, char **arguments)
try {
    std::string way = arguments[1];
    dora::Node node;
    dora::ActionServer server(node, way == "act" ? "request" : "", "answer");
    while (dora::Event event = node.next()) {
        if (event.name() == "INPUT_CLOSED" && event.id() == "array")
            break;
        if (!event.is_input())
            continue;
        if (way == "serve")
            node.serve(event, "request", "answer", [&](const dora::Event &, dora::Metadata &marked) {
                node.send("answer", event.arrow(), marked);
            });
        else if (way == "act" && server.handle(event))
            for (dora::ServedGoal &goal : server.goals()) {
                dora::Array array = goal.event().arrow();
                node.send("feedback", array, goal.metadata());
                server.finish(goal, "succeeded", array.schema, array.array);
            }
        else if (way == "call") {
            dora::Array array = event.arrow();
            node.send("out", node.call("request", array.schema, array.array, seconds(30)).arrow());
        } else if (way == "goal") {
            dora::Array array = event.arrow();
            std::string id = node.send_goal("request", array.schema, array.array);
            for (bool ended = false; !ended;) {
                dora::Event reply = node.wait_reply(id, seconds(30));
                ended = reply.metadata().has("goal_status");
                node.send("out", reply.arrow());
            }
        }
    }
} catch (const dora::Error &error) {
    std::printf("failed: %s\n", error.what());
    return 1;
}
