"""One BLAS thread during a fit, however many fits overlap."""

from __future__ import annotations

import threading

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import rnn_xp as rx
from rnn_xp.engines.threads import one_blas_thread

NUMPY = rx.get_backend("numpy")


KNOWN = {pool["filepath"] for pool in threadpool_info()}  # a fit may load another


def blas_threads():
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {pool["num_threads"] for pool in pools if pool["filepath"] in KNOWN}


@pytest.fixture
def two_threads():
    """BLAS as a user has it, with two threads."""
    with threadpool_limits(2, user_api="blas"):
        assert blas_threads() == {2}
        yield


@pytest.mark.usefixtures("two_threads")
class TestOneBlasThread:
    def test_alone(self):
        with one_blas_thread(NUMPY):
            assert blas_threads() == {1}
        assert blas_threads() == {2}

    @pytest.mark.parametrize("first_to_end", [0, 1])
    def test_overlapping_fits_keep_it_until_the_last_ends(self, first_to_end):
        fits = [one_blas_thread(NUMPY), one_blas_thread(NUMPY)]
        for fit in fits:
            fit.__enter__()
        fits.pop(first_to_end).__exit__(None, None, None)
        assert blas_threads() == {1}
        fits.pop().__exit__(None, None, None)
        assert blas_threads() == {2}

    def test_an_error_gives_it_back(self):
        with pytest.raises(KeyError), one_blas_thread(NUMPY):
            raise KeyError
        assert blas_threads() == {2}

    def test_fits_in_threads(self):
        """The second begins within the first, and ends after it."""
        net = rx.Network(hidden_size=3)
        x, y = rx.make_windows([k % 7 / 7 for k in range(40)], seq_length=5)
        begun, ended, seen = threading.Event(), threading.Event(), []

        def wait_for(event, number):
            def callback(epoch):
                if epoch.number == number:
                    begun.set()
                    assert event.wait(30)
                seen.append((number, blas_threads()))

            return callback

        def fit(event, number):
            rx.fit(
                net, x, y, optimizer=rx.optim.adam(), epochs=3, callbacks=[wait_for(event, number)]
            )

        def second():
            assert begun.wait(30)
            fit(ended, 2)

        threads = [threading.Thread(target=second)]
        threads[0].start()
        fit(begun, 1)
        ended.set()
        threads[0].join()
        assert len(seen) == 6
        assert all(threads == {1} for _, threads in seen)
        assert blas_threads() == {2}


def test_other_libraries_are_left_alone():
    with threadpool_limits(2, user_api="blas"), one_blas_thread(rx.get_backend("array_api_strict")):
        assert blas_threads() == {2}
