"""No two purposes of a run draw the same random numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.network.streams import Purpose, stream
from rnn_xp.training import inputs

SEEDS = (0, 1, 7, 2**32, 2**32 + 7, 2**64 + 1)


def keys():
    """Every purpose with small indices, and seeds of one and of several words."""
    for seed in SEEDS:
        yield seed, Purpose.WEIGHTS
        for epoch in range(4):
            yield seed, Purpose.SHUFFLE, epoch
        for update, block in itertools.product(range(4), range(4)):
            yield seed, Purpose.DROPOUT, update, block


def test_no_two_streams_coincide():
    every = list(keys())
    firsts = {stream(*key).integers(2**63) for key in every}
    assert len(firsts) == len(every) == len(SEEDS) * (1 + 4 + 16)


def test_a_stream_repeats():
    for key in keys():
        assert np.array_equal(stream(*key).random(3), stream(*key).random(3))


def test_initial_weights_are_those_of_the_plain_generator():
    """Seeds of published figures keep their meaning."""
    assert stream(3, Purpose.WEIGHTS).random() == np.random.default_rng(3).random()


@pytest.mark.parametrize("seed", [0, 5])
def test_the_first_dropout_mask_is_not_made_of_the_initial_weights(seed):
    weights = rx.Network(hidden_size=50).init(seed)["layer0.w_xh"].ravel()
    limit = np.abs(weights).max()
    uniforms = (weights / limit + 1.0) / 2.0
    draws = inputs.seeded(seed)(0, 0).random(50)
    assert np.abs(uniforms - draws).max() > 0.1


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_masks_of_an_update_do_not_share_the_order_of_an_epoch(epoch):
    order = np.concatenate(inputs.shuffled(1000, 100, seed=4)(epoch))
    assert not np.array_equal(order, inputs.seeded(4)(epoch, 0).permutation(1000))
    assert not np.array_equal(order, stream(4, Purpose.WEIGHTS).permutation(1000))
