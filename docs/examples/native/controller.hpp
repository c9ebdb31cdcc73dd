// Drives to the goals that clients send, and reports its position.

#pragma once

#include <dora/node.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

class Controller {
public:
    static constexpr double STEP_M = 0.05, SAFE_M = 1.0;

    explicit Controller(dora::Node &node) : node_(node), drive_(node, "goal", "arrived", "cancel") {}

    void run()
    {
        while (dora::Event event = node_.next()) {
            bool served = node_.serve(event, "where", "position", [&](const dora::Event &, auto &answer) {
                node_.send_values("position", &position_, 1, answer);
            });
            if (served || drive_.handle(event) || !event.is_input())
                continue;
            if (event.id() == "scan")
                see(event);
            else
                step();
        }
    }

private:
    void see(const dora::Event &event)
    {
        dora::Array scan = event.arrow();
        if (const float *ranges = scan.values<float>(); ranges != nullptr && scan.size() > 0)
            free_m_ = *std::min_element(ranges, ranges + scan.size());
    }
    void step()
    {
        for (dora::ServedGoal &goal : drive_.goals()) {
            double target = std::atof(std::string(goal.event().data().text()).c_str());
            double way = target - position_;
            bool blocked = way > 0 && free_m_ < SAFE_M;
            if (goal.canceled())
                drive_.finish(goal, "canceled");
            else if (std::abs(way) < 1e-9 || blocked)
                drive_.finish(goal, blocked ? "aborted" : "succeeded", std::to_string(position_));
            else {
                position_ += std::clamp(way, -STEP_M, STEP_M);
                node_.send("progress", std::to_string(position_), goal.metadata());
            }
            break; // one goal after the other
        }
        node_.send_values("pose", &position_, 1);
    }
    dora::Node &node_;
    dora::ActionServer drive_;
    double position_ = 0, free_m_ = INFINITY;
};
