"""Searches whose fits run elsewhere: on threads, in other processes, on workers of dask."""

from __future__ import annotations

import contextlib
import importlib.util

import numpy as np
import pytest
from estimating import labelled

import rnn_xp as rx

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

import joblib
import sklearn
from sklearn.model_selection import GridSearchCV

GRID = {"hidden_size": [2, 4], "n_estimators": [1, 2]}


@contextlib.contextmanager
def place(name):
    """Let joblib compute on threads, in processes, or on a cluster of dask on this machine."""
    if name != "dask":
        with joblib.parallel_backend(name, n_jobs=2):
            yield
        return
    if importlib.util.find_spec("distributed.client") is None:  # tests/distributed is found as well
        pytest.skip("dask's distributed is not installed")
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    )
    with cluster, Client(cluster), joblib.parallel_backend("dask"):
        yield


@pytest.fixture(params=["threading", "loky", "dask"])
def somewhere(request):
    with place(request.param):
        yield


@pytest.mark.parametrize("ragged", [False, True])
def test_a_search_finds_the_same_wherever_its_fits_run(somewhere, ragged):
    x, y = labelled(60)
    lengths = np.random.default_rng(0).integers(3, x.shape[1] + 1, len(x))
    model = rx.RecurrentClassifier(max_iter=4, n_iter_no_change=None, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        if ragged:
            model.set_fit_request(lengths=True).set_score_request(lengths=True)
        params = {"lengths": lengths} if ragged else {}
        elsewhere = GridSearchCV(model, GRID, cv=3).fit(x, y, **params)
        with joblib.parallel_backend("sequential"):
            here = GridSearchCV(model, GRID, cv=3).fit(x, y, **params)
    for k in range(3):
        name = f"split{k}_test_score"
        np.testing.assert_array_equal(elsewhere.cv_results_[name], here.cv_results_[name])
    assert elsewhere.best_params_ == here.best_params_
