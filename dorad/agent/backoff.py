"""How long to wait between attempts, and in one: both double each time, up to a bound."""

from dorad.jitter import between

FIRST_S, LONGEST_S = 0.2, 5.0
"""The first and the highest upper bound for a fleet of any size, in seconds."""

MAX_PAUSE_S = 120.0
"""Maximum of what a coordinator can ask for, in seconds."""


HANDSHAKE_S, MAX_HANDSHAKE_S = 10.0, 80.0
"""The first and the longest time for the handshake on an open connection, in seconds."""
MAX_HANDSHAKE_OF_SEVERAL_S = 20.0
"""The longest one if there are other coordinators to try: this one may hang."""


class Backoff:
    """Full jitter: 1,000 robots that lose one coordinator do not reconnect at the same moment."""

    def __init__(self, *, first: float = FIRST_S, longest: float = LONGEST_S) -> None:
        """`first` and `longest` are the first and the highest upper bound, in seconds."""
        self._first = first
        self._longest = longest
        self._limit = first

    def next(self) -> float:
        """Return the seconds until the next attempt."""
        delay = between(self._first / 4, self._limit)
        self._limit = min(2 * self._limit, self._longest)
        return delay


def bounded(pause: float) -> float:
    """Return the pause that a coordinator asks for, or the nearest one that is obeyed."""
    # Also if it is not a number.
    return min(pause, MAX_PAUSE_S) if pause > 0 else 0.0


def fleet_backoff(pause: float) -> Backoff:
    """Return the delays of a robot whose whole fleet spreads its tries over `pause` seconds.

    The first try is earlier: most connections that end are those of one robot, and a coordinator
    lets some wait.
    """
    return Backoff(first=max(FIRST_S, bounded(pause) / 4), longest=max(LONGEST_S, bounded(pause)))


class HandshakeTimeout:
    """The time for handshakes with one coordinator, which doubles when it was too short.

    A coordinator under load, with thousands of robots that connect at once, lets them wait for
    their turn. A robot that gives up begins again at the end of the line, and its handshake may be
    thrown away half done.
    """

    def __init__(self) -> None:
        self._seconds = HANDSHAKE_S

    def seconds(self, pause: float, *, alone: bool = True) -> float:
        """Return the time for the next handshake. `pause` is what the coordinator asked for.

        `alone`: there is no other coordinator to try.
        """
        longest = MAX_HANDSHAKE_S if alone else MAX_HANDSHAKE_OF_SEVERAL_S
        return max(min(self._seconds, longest), bounded(pause))

    @property
    def pause(self) -> float:
        """Maximum seconds until the next try, 0 unless the last one got no answer.

        It grows with the time for handshakes: thousands of tries are work, too.
        """
        return self._seconds / 2 if self._seconds > HANDSHAKE_S else 0.0

    def expired(self) -> None:
        """Record that the time was too short, or that the coordinator gave up on a handshake."""
        self._seconds = min(2 * self._seconds, MAX_HANDSHAKE_S)

    def answered(self) -> None:
        """Record that the coordinator has answered."""
        self._seconds = HANDSHAKE_S
