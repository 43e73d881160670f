"""Cells with a mistake in them."""

from __future__ import annotations


def broken_step_back(cell, make):
    """The cell's step_back, whose dL/dh_{t-1} is altered."""
    right = cell.step_back

    def step_back(self, params, dstate, cache, *, xp):
        share, dbefore = right(self, params, dstate, cache, xp=xp)
        return share, dbefore._replace(h=make(dbefore.h))

    return step_back
