"""Times of several contenders, taken in turns."""

from __future__ import annotations

import abc
import time

import numpy as np

ROUNDS, LEAST_ROUNDS = 7, 5  # each gives every contender at least one time
MOST = 15  # times of a contender in a round
LONG = 0.5  # s
PAUSE = 0.03  # s; threads of the one before keep spinning for so long


class Contender(abc.ABC):
    """Something that does a step of work when asked, and can be timed doing it."""

    name = "?"
    clock = staticmethod(time.perf_counter)

    @abc.abstractmethod
    def step(self):
        """Do the work, and wait until it is done."""

    def times(self, seconds, most):
        """Seconds of one step, measured for so many steps, or as many as fit into the seconds."""
        taken, end = [], time.perf_counter() + seconds
        while not taken or (len(taken) < most and time.perf_counter() < end):
            began = self.clock()
            self.step()
            taken.append(self.clock() - began)
        return taken

    def close(self):
        """Give back what the contender holds; most hold nothing."""
        return


def interleave(contenders, seconds, rounds):
    """Time all contenders in rounds, in about so many seconds; name to list of seconds.

    There are at least five rounds, however long they take. Each begins with another contender.
    Before its turn a contender does a step that is not timed, to find its caches and threads
    awake, unless one takes longer than its whole turn and so long that this is no matter.
    """
    turn = seconds / (rounds * len(contenders))
    found = {contender.name: [] for contender in contenders}
    end = time.perf_counter() + seconds
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        first = number % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            taken = found[contender.name]
            time.sleep(PAUSE)
            if not taken or taken[-1] < max(turn, LONG):
                contender.step()
            taken += contender.times(turn, MOST)
    return found


def median(times):
    return float(np.median(times))


def quartiles(times):
    return tuple(float(value) for value in np.quantile(times, (0.25, 0.75)))
