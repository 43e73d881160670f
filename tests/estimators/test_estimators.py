"""The scikit-learn estimators: scikit-learn's own checks, and what is particular to windows."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from estimating import FEW_EPOCHS, quick, series, watch_fit, windows

import rnn_xp as rx

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
import joblib  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    TimeSeriesSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from rnn_xp.estimators import RecurrentClassifier, RecurrentRegressor  # noqa: E402
from rnn_xp.network import pipeline  # noqa: E402


@pytest.mark.full("readonly_memmap")
@pytest.mark.cover("values")  # each check, of one of the two
@parametrize_with_checks(
    [
        RecurrentRegressor(random_state=0),
        RecurrentClassifier(random_state=0, max_iter=50, n_estimators=1),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@FEW_EPOCHS
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.full
@parametrize_with_checks([RecurrentClassifier(random_state=0)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@FEW_EPOCHS
def test_scikit_learns_own_checks_of_the_defaults(estimator, check):
    """The same checks with all epochs of the classifier."""
    check(estimator)


ARRAY_API = """
import sys, warnings
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator
import rnn_xp as rx
estimator = getattr(rx, sys.argv[1])(random_state=0, hidden_size=4, max_iter=5)
done = 0
for estimator, check in estimator_checks_generator(estimator):
    # scikit-learn takes the devices of torch and dpnp for granted.
    elsewhere = any(name in str(check.keywords) for name in ("torch", "dpnp"))
    if "array_api" in check.func.__name__ and not elsewhere:
        try:
            check(estimator)
            done += 1
        except Exception as error:
            if type(error).__name__ != "SkipTest":
                raise
print(done)
"""


@pytest.mark.full
@pytest.mark.parametrize("name", ["RecurrentRegressor", "RecurrentClassifier"])
def test_scikit_learns_checks_of_array_api_dispatch(name):
    """In a process of its own: SciPy reads this setting when it is imported."""
    path = str(Path(rx.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", ARRAY_API, name],
        env={"SCIPY_ARRAY_API": "1", "PYTHONPATH": path, "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3


class TestRegressor:
    def test_a_grid_search_over_cells_on_500_windows(self):
        x, y = windows(508)
        assert len(x) == 500
        search = GridSearchCV(
            make_pipeline(StandardScaler(), quick(solver="lbfgs", max_iter=15)),
            {"recurrentregressor__cell": ["rnn", "gru", "lstm"],
             "recurrentregressor__hidden_size": [2, 8]},
            cv=TimeSeriesSplit(3),
        )  # fmt: skip
        search.fit(x, y)
        assert len(search.cv_results_["params"]) == 6
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert search.best_score_ > 0.95
        assert search.predict(x).shape == (500,)

    def test_three_axes_are_features_at_each_step(self):
        x, y = windows()
        both = np.stack([x, np.zeros_like(x)], axis=2)
        model = quick().fit(both, y)
        assert model.net_.input_size == 2
        assert model.n_features_in_ == 8
        assert model.predict(both).shape == y.shape
        np.testing.assert_allclose(
            quick().fit(x[:, :, None], y).predict(x[:, :, None]), quick().fit(x, y).predict(x)
        )
        with pytest.raises(ValueError, match="1 features at each step, .* expecting 2"):
            model.predict(x)
        with pytest.raises(ValueError, match=r"\(n, T\), windows of one series, or \(n, T, I\)"):
            quick().fit(both[..., None], y)

    def test_several_outputs(self):
        x, y = rx.make_windows(series(), 8, horizon=3)
        model = quick().fit(x, y)
        assert model.n_outputs_ == 3
        assert model.predict(x).shape == y.shape

    @pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
    def test_precision_follows_x(self, dtype):
        x, y = windows()
        model = quick().fit((10 * x).astype(dtype), y)
        expected = "float32" if dtype == "float32" else "float64"
        assert {p.dtype.name for p in model.params_.values()} == {expected}
        assert model.predict((10 * x).astype(dtype)).dtype.name == expected

    def test_it_is_fit(self):
        """The defaults are those that are documented: Adam 0.001, 200 rows, 200 epochs."""
        x, y = windows()
        model = RecurrentRegressor(hidden_size=6, random_state=5, n_iter_no_change=None).fit(x, y)
        seed = int(np.random.RandomState(5).randint(2**31))
        result = rx.fit(
            rx.Network(hidden_size=6), x[:, :, None], y[:, None], optimizer=rx.optim.adam(1e-3),
            epochs=200, batch_size=200, seed=seed, backend=rx.get_backend("numpy", dtype="float64"),
        )  # fmt: skip
        assert model.loss_curve_ == result.history["loss"]
        assert model.n_iter_ == 200
        assert model.best_loss_ == min(model.loss_curve_)
        for name, p in result.params.items():
            assert np.array_equal(model.params_[name], p)

    def test_a_weight_of_two_is_a_row_twice(self):
        x, y = windows(60)
        twice = np.arange(len(x)) % 3 == 0
        weighted = quick(solver="lbfgs").fit(x, y, sample_weight=1.0 + twice)
        repeated = quick(solver="lbfgs").fit(
            np.concatenate([x, x[twice]]), np.concatenate([y, y[twice]])
        )  # fmt: skip
        np.testing.assert_allclose(weighted.predict(x), repeated.predict(x), rtol=1e-6)
        with pytest.raises(ValueError, match="Negative values"):
            quick().fit(x, y, sample_weight=-np.ones(len(x)))

    def test_epoch_by_epoch_is_the_same_training(self):
        x, y = windows(100)
        settings = {"max_iter": 4, "n_iter_no_change": None}
        whole, parts = quick(**settings).fit(x, y), quick()
        for _ in range(4):
            parts.partial_fit(x, y)
        assert parts.loss_curve_ == whole.loss_curve_
        assert parts.n_iter_ == 4
        again = quick(**settings, warm_start=True).fit(x, y)
        again.set_params(max_iter=2).fit(x, y)
        assert again.loss_curve_[:4] == whole.loss_curve_
        assert len(again.loss_curve_) == 6
        assert again.loss_curve_[4] < whole.loss_curve_[3]
        with pytest.raises(ValueError, match="cannot go on as .*Give warm_start=False"):
            again.set_params(hidden_size=7).fit(x, y)

    def test_minibatches_of_later_epochs_are_in_another_order(self):
        x, y = windows(100)
        model = quick(batch_size=20, max_iter=1, warm_start=True)
        seeds = []
        original = importlib.import_module("rnn_xp.estimators.members").fit
        for _ in range(2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "rnn_xp.estimators.members.fit",
                    lambda *args, **named: seeds.append(named["seed"]) or original(*args, **named),
                )
                model.fit(x, y)
        assert seeds[0] != seeds[1]

    def test_early_stopping_holds_out_the_last_windows(self):
        x, y = windows(200)
        model = quick(early_stopping=True, max_iter=300, n_iter_no_change=5, solver="rmsprop",
                      learning_rate_init=0.01).fit(x, y)  # fmt: skip
        held_out = round(0.1 * len(x))
        error = np.mean((model.predict(x[-held_out:]) - y[-held_out:]) ** 2)
        assert model.best_loss_ == pytest.approx(error)
        assert model.best_loss_ == min(model.validation_curve_)
        changed = y.copy()
        changed[-held_out:] += 5.0
        again = clone(model).set_params(max_iter=3, n_iter_no_change=None).fit(x, changed)
        assert again.loss_curve_ == model.loss_curve_[:3]

    def test_tolerance_ends_training(self):
        x, y = windows(100)
        model = quick(max_iter=50, tol=0.5, n_iter_no_change=3).fit(x, y)
        assert model.n_iter_ == 4

    @pytest.mark.parametrize("solver", ["adam", "adamw", "rmsprop", "adagrad", "sgd", "lbfgs"])
    def test_solvers(self, solver):
        x, y = windows(100)
        model = quick(solver=solver, learning_rate_init=0.01).fit(x, y)
        assert model.loss_curve_[-1] < model.loss_curve_[0]

    def test_an_optimiser_of_ones_own(self):
        x, y = windows(100)
        mine = quick(solver=rx.optim.adam(0.02)).fit(x, y)
        assert mine.loss_curve_ == quick(learning_rate_init=0.02).fit(x, y).loss_curve_

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"solver": "newton"},
                "solver='newton' is not known. Choose from: lbfgs, adam, .*adagrad",
            ),
            ({"solver": "lbfgs", "alpha": 1.0}, "'lbfgs' has no alpha; leave it out"),
            ({"batch_size": 0}, "batch_size must be 'auto' or an integer >= 1, got 0"),
            ({"batch_size": "all"}, "batch_size must be 'auto' or an integer >= 1, got 'all'"),
            ({"batch_size": True}, "batch_size must be 'auto' or an integer >= 1, got True"),
            ({"batch_size": 2.5}, "batch_size must be 'auto' or an integer >= 1, got 2.5"),
            ({"cell": "transformer"}, "cell"),
            ({"max_iter": 0}, "max_iter must be an integer >= 1, got 0"),
            ({"learning_rate": "linear"}, "learning_rate='linear' is not known. Valid: 'constant'"),
            ({"patch_size": 0}, "patch_size must be 'auto' or an integer >= 1, got 0"),
            ({"patch_size": "some"}, "patch_size must be 'auto' or an integer >= 1, got 'some'"),
        ],
    )
    def test_settings_that_cannot_be(self, settings, message):
        with pytest.raises(ValueError, match=message):
            quick(**settings).fit(*windows(60))

    def test_alpha_and_clipping_reach_the_solver(self):
        x, y = windows(60)
        plain = quick(max_iter=30, learning_rate_init=0.01).fit(x, y)
        decayed = quick(max_iter=30, learning_rate_init=0.01, alpha=1.0).fit(x, y)
        size = [np.abs(model.params_["readout.w_hy"]).sum() for model in (plain, decayed)]
        assert size[1] < 0.8 * size[0]
        clipped = quick(solver="sgd", learning_rate_init=1.0, clip_norm=1e-6, max_iter=2).fit(x, y)
        assert clipped.loss_curve_[1] == pytest.approx(clipped.loss_curve_[0], rel=1e-4)

    def test_verbose_reports_on_stderr(self, capsys):
        quick(verbose=True).fit(*windows(60))
        assert "epoch 5/5" in capsys.readouterr().err
        quick().fit(*windows(60))
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("rows", [200, 201, 217, 232, 233])
    @pytest.mark.parametrize(("batch_size", "least"), [("auto", 200), (64, 64)])
    def test_a_batch_has_at_most_the_rows_that_are_trained_on(self, rows, batch_size, least):
        """Early stopping leaves fewer: 10 % and T of 10 windows are not trained on."""
        if batch_size == 64:
            rows -= 136  # 64 to 97
        x = np.random.default_rng(0).standard_normal((rows, 10))
        model = quick(batch_size=batch_size, early_stopping=True, max_iter=1)
        with pytest.MonkeyPatch.context() as patch:
            named = watch_fit(patch)
            model.fit(x, x[:, 0])
        trained = rows - round(0.1 * rows) - 10
        assert named["batch_size"] == (None if trained <= least else least)
        assert named["gap"] == 10
        other = quick(batch_size=trained, max_iter=1).fit(x[:trained], x[:trained, 0])
        if trained <= least:
            assert other.loss_curve_ == model.loss_curve_

    def test_the_gap_of_several_steps_ahead(self, monkeypatch):
        x = np.random.default_rng(0).standard_normal((60, 10))
        named = watch_fit(monkeypatch)
        quick(early_stopping=True, max_iter=1).fit(x, x[:, :3])
        assert named["gap"] == 12

    @FEW_EPOCHS
    def test_numbers_of_numpy(self):
        x, y = windows(100)
        settings = {
            "num_layers": np.int32(2), "bidirectional": np.False_, "layer_norm": np.True_,
            "residual": np.True_, "dropout": np.float32(0.25),
            "recurrent_dropout": np.float64(0.25), "learning_rate_init": np.float64(0.01),
            "alpha": np.float64(0.5),
            "clip_norm": np.float64(1.0), "batch_size": np.int64(20), "max_iter": np.int64(2),
            "tol": np.float64(0.0), "n_iter_no_change": np.int64(5),
            "early_stopping": np.True_, "validation_fraction": np.float32(0.25),
            "random_state": np.int64(3), "warm_start": np.False_, "verbose": np.False_,
            "workers": np.int64(1),
        }  # fmt: skip
        plain = {name: value.item() for name, value in settings.items()}
        ours = RecurrentRegressor(hidden_size=np.int16(6), **settings).fit(x, y)
        theirs = RecurrentRegressor(hidden_size=6, **plain).fit(x, y)
        assert ours.loss_curve_ == theirs.loss_curve_
        assert ours.net_ == theirs.net_
        assert repr(ours.net_) == repr(theirs.net_)

    def test_a_grid_of_numpy_integers(self):
        x, y = windows(60)
        search = GridSearchCV(quick(max_iter=2), {"hidden_size": np.arange(2, 5)}, cv=2)
        assert search.fit(x, y).best_params_["hidden_size"] in (2, 3, 4)

    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            (np.ones((92, 1)), r"sample_weight must have shape \(n,\), got \(92, 1\)"),
            (np.ones(91), r"inconsistent numbers of samples: \[92, 91\]"),
            (np.full(92, np.nan), "sample_weight contains NaN"),
            (-np.ones(92), "Negative values .* sample_weight"),
            (np.zeros(92), "sample_weight is zero for every row; at least one must be positive"),
        ],
    )
    def test_weights_that_cannot_be(self, weight, message):
        x, y = windows(100)
        with pytest.raises(ValueError, match=message):
            quick().fit(x, y, sample_weight=weight)

    @pytest.mark.parametrize("backend", [None, "array_api_strict"])
    def test_a_fitted_estimator_holds_no_module(self, backend):
        model = quick(backend=backend).fit(*windows(60))

        def modules(thing, seen):
            if id(thing) in seen:
                return []
            seen[id(thing)] = thing
            if isinstance(thing, types.ModuleType):
                return [thing]
            parts = [*vars(thing).values()] if hasattr(thing, "__dict__") else []
            if isinstance(thing, dict):
                parts += [*thing.values()]
            elif isinstance(thing, list | tuple):
                parts += [*thing]
            return [found for part in parts for found in modules(part, seen)]

        kept = {name: value for name, value in vars(model).items() if name != "backend"}
        if backend is not None:  # arrays of array-api-strict hold NumPy's arrays and a device
            arrays = ("params_", "networks_", "_members")
            kept = {name: kept[name] for name in kept if name not in arrays}
        assert not modules(kept, {})

    def test_cross_validation_and_copies(self, tmp_path):
        x, y = windows(150)
        scores = cross_val_score(quick(solver="lbfgs", max_iter=20), x, y, cv=TimeSeriesSplit(3))
        assert scores[-1] > 0.9
        model = quick().fit(x, y)
        joblib.dump(model, tmp_path / "model.joblib")
        for copy in (
            pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib"),
            clone(model).fit(x, y),
        ):  # fmt: skip
            assert np.array_equal(copy.predict(x), model.predict(x))
            assert copy.partial_fit(x, y).loss_curve_ == [*model.loss_curve_, copy.loss_curve_[-1]]

    def test_frames_and_series_of_pandas(self):
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        x, y = windows(60)
        frame = pandas.DataFrame(x, columns=[f"lag{lag}" for lag in range(8, 0, -1)])
        expected = quick().fit(x, y)
        model = quick().fit(frame, pandas.Series(y, index=range(100, 100 + len(y))))
        assert list(model.feature_names_in_) == list(frame.columns)
        assert np.array_equal(model.predict(frame), expected.predict(x))
        both = quick().fit(frame, pandas.DataFrame({"one": y, "two": 2.0 * y}))
        assert np.array_equal(
            both.predict(frame), quick().fit(x, np.stack([y, 2.0 * y], 1)).predict(x)
        )
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(frame[frame.columns[::-1]])

    def test_memory_of_a_prediction_does_not_grow_with_the_rows(self, monkeypatch):
        x, y = windows(100)
        model, seen = quick().fit(x, y), []
        run = pipeline.run

        def watched(net, params, rows, *args, **named):
            seen.append(rows.shape[0])
            return run(net, params, rows, *args, **named)

        monkeypatch.setattr(pipeline, "run", watched)
        many = np.concatenate([x] * 30)
        np.testing.assert_allclose(model.predict(many)[: len(x)], model.predict(x), rtol=1e-12)
        assert sum(seen) == len(many) + len(x)
        assert max(seen) == 1040


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("rnn_xp.estimators")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(vars(rx), "RecurrentRegressor", raising=False)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[sklearn\]'"):
        _ = rx.RecurrentRegressor
    exec("from rnn_xp import *", {})
