// A unit test of the controller: no dataflow, no daemon.

#include "controller.hpp"

#include <dora/testing.hpp>

#include <iostream>

static int failures = 0;

static void expect(bool condition, const char *what)
{
    failures += !condition;
    std::cout << (condition ? "ok: " : "FAILED: ") << what << std::endl;
}

int main()
{
    dora::testing::MockNode mock("controller");
    mock.input("goal", "0.1", dora::Metadata().set("goal_id", "one"));
    mock.input("tick", "").input("tick", "").input("tick", "");
    mock.input("where", "", dora::Metadata().set("request_id", "ask"));
    mock.input_values<float>("scan", {0.5f, 2.0f});
    mock.input("goal", "5", dora::Metadata().set("goal_id", "two")).input("tick", "");
    Controller(mock.node()).run();
    expect(mock.sent("progress") && mock.sent("progress") && !mock.sent("progress"), "two steps");
    expect(mock.sent("arrived").metadata().get_string("goal_status") == "succeeded", "it arrives");
    expect(*mock.sent("position").arrow().values<double>() == 0.1, "it knows where it is");
    expect(mock.sent("arrived").metadata().get_string("goal_status") == "aborted", "it stops");
    return failures;
}
