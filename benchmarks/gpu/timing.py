"""Epochs that are handed to a device one after the other and waited for once, and their times.

A device works on its own: what is timed step by step is the way there. So a sample is as many
epochs as last 50 ms, with one wait at the end; between two events on the device, and by the clock.
"""

from __future__ import annotations

import abc
import time

import numpy as np

from benchmarks.cpu.timing import Contender

WARM_UP, WARM_UP_SECONDS = 50, 1.5  # epochs, and how long they may take at most
SAMPLE_SECONDS, MOST_EPOCHS = 0.05, 5000
LEAST_SAMPLES, MOST_SAMPLES = 5, 25


class Epochs(Contender):
    """A contender whose work is done by a device."""

    unit = 1  # epochs that are handed over at once

    @abc.abstractmethod
    def run(self, epochs):
        """Hand over so many epochs, a multiple of the unit."""

    def synchronize(self):
        """Wait for the device."""

    def event(self):
        """Mark this moment of the device; None where that cannot be done.

        Who can has ``elapsed(first, last)`` too, the milliseconds between two of them.
        """
        return

    @abc.abstractmethod
    def loss(self):
        """Loss of the latest epoch."""

    def step(self):
        self.run(1)
        self.synchronize()
        return self.loss()


def measure(contender, seconds):
    """Microseconds of an epoch, by the clock and on the device, in about so many seconds."""

    def timed(epochs):
        contender.synchronize()
        began, first = time.perf_counter(), contender.event()
        contender.run(epochs)
        last = contender.event()
        contender.synchronize()
        wall = (time.perf_counter() - began) / epochs
        device = None if first is None else contender.elapsed(first, last) / epochs * 1e-3
        return wall, device

    unit, end, warm = contender.unit, time.perf_counter() + WARM_UP_SECONDS, 0
    while warm < WARM_UP and (not warm or time.perf_counter() < end):
        wall, _ = timed(unit)
        warm += unit
    wall, _ = timed(unit * max(1, min(10, int(0.1 / (wall * unit)))))
    epochs = min(max(SAMPLE_SECONDS / wall, 1), MOST_EPOCHS)
    epochs = unit * -int(-epochs // unit)
    samples = int(min(max(seconds / (epochs * wall), LEAST_SAMPLES), MOST_SAMPLES))
    walls, devices = zip(*(timed(epochs) for _ in range(samples)), strict=True)
    low, middle, high = (1e6 * float(q) for q in np.quantile(walls, (0.1, 0.5, 0.9)))
    on_device = None if None in devices else 1e6 * float(np.median(devices))
    return {
        "wall": middle, "p10": low, "p90": high, "device": on_device, "epochs": epochs,
        "samples": samples,
    }  # fmt: skip
