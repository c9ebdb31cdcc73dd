"""A recorder that is killed at any moment leaves a file that can be recovered.

`RECORD_KILLS=100` makes more of them.
"""

import os

from tests.record.kills import kill_one, server

KILLS = int(os.environ.get("RECORD_KILLS", "10"))
MAX_LOST_S = 3.0
"""A chunk is written after 0.25 s; the rest is for machines that are busy with other work."""


def test_a_killed_recorder_leaves_all_but_the_last_moment_and_nothing_twice(tmp_path, chance):
    worst = 0.0
    with server() as forks:
        for number in range(KILLS):
            killed = kill_one(forks, tmp_path / f"{number}.mcap", chance.uniform(0.05, 0.8))
            assert killed.found == list(range(len(killed.found)))
            assert len(killed.found) <= killed.sent
            worst = max(worst, killed.lost_s)
            assert killed.lost_s < MAX_LOST_S
    print(f"{KILLS} recorders killed: at most {worst * 1000:.0f} ms lost")
