"""Tests of the console: pure parts, screens against a fake server, and a real terminal.

What proves each thing that an operator relies on:

- The first row of 500 robots, an idle console, 500 changes a second beside DataTable, 10,000 log
  lines a second, a picture of 640x480: `make bench-console`.
- A line of 20 kB/s, with keys in pieces: `hwtests.console.slow`; `test_frames`.
- A killed node is named, its key opens the logs, `|` into less and back: `test_terminal`; over two
  robots: `tests/fleet/control/test_real`.
- Forty robots with one cause are one line: `test_screens`. What flaps is one alert:
  `test_alertbook`.
- A server that ends makes every screen STALE; cursor, filter and marks are kept: `test_screens`.
- `enter` opens the robot under the cursor while robots reorder: `test_screens`.
- No keys change anything without a confirmed dialog; --readonly and a viewer: `test_safety`. Keys
  that are typed ahead: `test_prompt`.
- A copied command does the same: `test_copied_commands`, `tests/fleet/control/test_real`.
- Hostile texts: `test_safety`, `test_pure`.
- What is left out of logs is counted: `tests/logs/test_hub`.
- An image is made small on its robot: `test_servers`.
- Screens of each size, in ASCII: `test_golden`; without colour: `test_without_colour`; a terminal
  of 10x3 and back: `test_screens`.
- A failed node never reads OK: `test_servers`, `tests/fleet/control/test_alerts`.
- Hours: `make soak-console`; nothing is kept of closed screens: `test_hidden_screens`.
"""
