"""`Forecaster`: what goes in comes out, nothing of the future leaks in, and it says the truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from forecasters import quick, waves
from numpy.lib.stride_tricks import sliding_window_view

import rnn_xp as rx
from rnn_xp.forecasting.design import make_design
from rnn_xp.forecasting.linear import fit_path
from rnn_xp.forecasting.panel import as_panel
from rnn_xp.forecasting.prepared import prepare
from rnn_xp.forecasting.training import cut, first_validated


class TestFirstValidated:
    def test_windows_of_the_two_parts_share_no_value(self):
        values = np.arange(100.0)
        for horizon, offset in ((1, 0), (3, 0), (2, 1)):
            first = first_validated(100, 10, offset, horizon, 0.2)
            target = "diff" if offset else "level"
            design = make_design(
                values, np.empty((100, 0)), np.empty((100, 0)), target=target, scaler="none",
                train=first,
            )  # fmt: skip
            if offset:  # of differences all are alike: look at rows instead
                design = dataclasses.replace(design, z=values[1:])
            trained, validated = cut(design, first, 10, horizon, horizon)
            seen = set(trained.x.ravel()) | set(trained.y.ravel())
            later = set(validated.x.ravel()) | set(validated.y.ravel())
            assert not seen & later
            assert max(seen) + 1 == min(later)
            assert len(validated.y) == round(0.2 * (100 - 10 - offset - horizon + 1))
            assert validated.y[0, 0] == first

    def test_a_series_too_short_says_how_much_is_missing(self):
        with pytest.raises(
            ValueError, match=r"20 values is too short.* at least (\d+) are req"
        ) as e:
            first_validated(20, 10, 0, 1, 0.2)
        needed = int(str(e.value).split("at least ")[1].split()[0])
        assert f"{needed - 20} more" in str(e.value)
        first_validated(needed, 10, 0, 1, 0.2)
        with pytest.raises(ValueError, match="1 more"):
            first_validated(needed - 1, 10, 0, 1, 0.2)


class TestDesign:
    def test_a_window_knows_the_future_features_of_all_steps_ahead(self):
        rows, reach = 30, 3
        t = np.arange(rows, dtype=float)
        design = make_design(
            t, 100 + t[:, None], 1000 + t[:, None], target="level", scaler="none", train=rows
        )
        (x,), (last,) = (
            getattr(design.windows(np.asarray([20]), 4, reach, design.future[:0]), name)
            for name in ("x", "last")
        )
        assert x[:, 0].tolist() == [16, 17, 18, 19]
        assert x[:, 1].tolist() == [116, 117, 118, 119]
        assert x[:, 2].tolist() == [1019, 1020, 1021, 1022]  # rows 20, 21 and 22 are asked for
        assert last == 19.0
        ahead = np.asarray([[1030.0], [1031.0], [1032.0]])
        (x,) = design.windows(np.asarray([30]), 4, reach, ahead).x
        assert x[:, 2].tolist() == [1029, 1030, 1031, 1032]

    def test_the_scaler_sees_the_training_part_alone(self):
        values = waves()
        changed = values.copy()
        changed[150:] = 99.0
        empty = np.empty((len(values), 0))
        a, b = (
            make_design(v, empty, empty, target="level", scaler="standard", train=150)
            for v in (values, changed)
        )
        assert a.scaler == b.scaler
        np.testing.assert_allclose(a.z[:150].mean(), 0.0, atol=1e-12)

    def test_missing_values_are_zero_and_not_known(self):
        values = waves()
        values[[0, 40, 41]] = np.nan
        empty = np.empty((len(values), 0))
        design = make_design(values, empty, empty, target="level", scaler="standard", train=200)
        assert np.flatnonzero(~design.known).tolist() == [0, 40, 41]
        assert not design.z[[0, 40, 41]].any()
        assert design.levels[41] == values[39]
        assert design.levels[0] == values[1]
        np.testing.assert_allclose(design.scaler.offset[0], np.nanmean(values[:200]), rtol=1e-12)


class TestForecasts:
    def test_it_starts_from_the_linear_path(self):
        """Training goes down from there, on the windows that are trained on."""
        f = quick(epochs=3, horizon=2, refit=False).fit(waves())
        values = waves()
        first = first_validated(len(values), 8, 0, 2, f.validation)
        design = f.fitted.designs[0]
        trained, _ = cut(design, first, 8, 2, 2)
        known = design.z[:first]
        path = fit_path(sliding_window_view(known, 9)[:, :-1], known[8:], period=None)
        weights, intercepts = path.ahead(2)
        start = np.mean((trained.x[:, :, 0] @ weights.T + intercepts - trained.y) ** 2)
        np.testing.assert_allclose(f.history_[0]["loss"][0], start, rtol=1e-3)
        assert f.history_[0]["loss"][-1] < start

    def test_direct_and_recursive_are_the_same_for_one_step(self):
        a, b = (quick(strategy=s).fit(waves()).predict() for s in ("direct", "recursive"))
        assert np.array_equal(a, b)

    def test_recursive_goes_on_from_the_newest_value(self):
        """A ramp, whose next value needs the latest one."""
        f = quick(strategy="recursive", horizon=4, target="diff", scaler="none", linear=True)
        ramp = np.arange(200.0) + np.tile([0.0, 0.25], 100)
        found = f.fit(ramp).predict(6)
        np.testing.assert_allclose(found, np.arange(200, 206) + np.tile([0, 0.25], 3), atol=0.05)

    @pytest.mark.parametrize("target", ["diff", "logret"])
    def test_a_trend_is_followed_out_of_the_range(self, target):
        t = np.arange(300)
        series = (
            np.exp(t / 60.0) * (1.0 + 0.01 * np.sin(t / 3.0)) if target == "logret" else 2.0 * t
        )
        series = series + (0.3 * np.sin(t / 3.0) if target == "diff" else 0.0)
        found = quick(target=target, horizon=5, scaler="none").fit(series[:280]).predict(20)
        np.testing.assert_allclose(found, series[280:], rtol=0.01)

    def test_more_steps_than_the_horizon_go_on_from_the_forecasts(self):
        """In blocks of the horizon; the last one ends with the last step."""
        f = quick(horizon=3).fit(waves())
        found = f.predict(8)
        values = waves()
        for at, count in ((0, 3), (3, 3), (5, 3)):
            known = np.concatenate([values, found[:at]])
            again = make_design(
                known, np.empty((len(known), 0)), np.empty((len(known), 0)), target="level",
                scaler=f.fitted.designs[0].scaler, train=0,
            )  # fmt: skip
            block = f.predictor_.from_rows([_longer(again, 3)], [np.asarray([len(known)])], 3)[0][
                0, :, 0
            ]
            skip = {0: 0, 3: 0, 5: 1}[at]  # of the last block only the steps that are missing
            np.testing.assert_allclose(found[at + skip : at + count], block[skip:], rtol=1e-6)

    def test_seeds_are_averaged(self):
        several = quick(horizon=2, n_seeds=3, random_state=5).fit(waves()).predict()
        single = [quick(horizon=2, random_state=5 + k).fit(waves()).predict() for k in range(3)]
        assert not np.allclose(single[0], single[1], rtol=1e-9)
        np.testing.assert_allclose(several, np.mean(single, axis=0), rtol=1e-6)

    def test_known_future_features_are_used(self):
        rng = np.random.default_rng(0)
        feature = rng.standard_normal(300)
        series = feature + 0.01 * rng.standard_normal(300)
        f = quick(horizon=2, epochs=30)
        with_it = f.fit(series[:298], future=feature[:298]).predict(future=feature[298:])
        np.testing.assert_allclose(with_it, series[298:], atol=0.1)
        assert f.report_.metrics["rmse"] < 0.1
        assert quick(horizon=2, epochs=30).fit(series[:298]).report_.metrics["rmse"] > 0.8

    def test_past_features_are_used(self):
        rng = np.random.default_rng(0)
        feature = rng.standard_normal(300)
        series = np.concatenate([[0.0], feature[:-1]]) + 0.01 * rng.standard_normal(300)
        f = quick(epochs=30).fit(series, past=feature)
        assert f.report_.metrics["rmse"] < 0.1
        np.testing.assert_allclose(f.predict()[0], feature[-1], atol=0.1)

    def test_missing_values_are_skipped_if_asked(self):
        values = waves()
        values[[30, 31, 100, 239]] = np.nan
        found = quick(missing="mask", horizon=2).fit(values)
        assert np.isfinite(found.predict()).all()
        assert found.report_.metrics["rmse"] < 0.5

    def test_a_backend_and_its_dtype_are_used(self):
        backend = rx.get_backend("array_api_strict", device="device1", dtype="float32")
        a = quick(backend=backend).fit(waves()).predict(3)
        b = quick(backend=rx.get_backend("numpy", dtype="float32")).fit(waves()).predict(3)
        np.testing.assert_allclose(a, b, atol=1e-3)


class TestIntervals:
    @pytest.mark.parametrize("kind", ["split", "adaptive", "quantile"])
    def test_they_cover_noise_about_as_promised(self, kind):
        rng = np.random.default_rng(0)
        series = np.sin(np.arange(2000) / 5.0) + rng.normal(0.0, 0.2, 2000)
        f = quick(intervals=kind, level=0.8, horizon=2, epochs=40, validation=0.25)
        result = f.backtest(series, start=0.6)
        # Of 295 errors and 800 forecasts a standard deviation is 0.027.
        assert 0.73 < result.metrics["coverage"] < 0.87
        assert len(result.per_step["coverage"]) == 2
        assert 0.8 < result.metrics["width"] / (2 * 1.2816 * 0.2) < 1.4

    def test_they_lie_around_the_forecast_and_widen_with_the_level(self):
        f = quick(horizon=3).fit(waves())
        forecast = f.predict()
        narrow, wide = (f.predict_interval(level=level) for level in (0.5, 0.9))
        assert (wide[0] < narrow[0]).all()
        assert (narrow[0] < forecast).all()
        assert (forecast < narrow[1]).all()
        assert (narrow[1] < wide[1]).all()

    def test_what_they_cannot_do(self):
        f = quick(horizon=2).fit(waves())
        with pytest.raises(ValueError, match="intervals reach 2 steps"):
            f.predict_interval(3)
        with pytest.raises(ValueError, match=r"level must be a share"):
            f.predict_interval(level=90)
        with pytest.raises(ValueError, match="there are no intervals"):
            quick(intervals=None).fit(waves()).predict_interval()
        with pytest.raises(ValueError, match="trained for level=0.9 alone"):
            quick(intervals="quantile").fit(waves()).predict_interval(level=0.5)


def test_its_settings_are_those_of_scikit_learn():
    f = quick()
    assert f.get_params()["seq_length"] == 8
    assert f.set_params(horizon=3) is f
    assert f.horizon == 3
    with pytest.raises(ValueError, match="no parameter 'width'"):
        f.set_params(width=3)


class TestFrozenAtFit:
    """What a forecaster was fitted with holds until it is fitted again."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("horizon", 5), ("seq_length", 3), ("target", "diff"), ("intervals", None),
            ("strategy", "recursive"), ("n_seeds", 3), ("level", 0.5), ("validation", None),
        ],
    )  # fmt: skip
    def test_a_setting_changed_since_changes_nothing(self, name, value, tmp_path):
        longer = np.concatenate([waves(), waves(20, 1)])

        def everything(f):
            low, high = f.predict_interval()
            f.save(tmp_path / "f")
            again = rx.Forecaster.load(tmp_path / "f")
            judged, tested = f.evaluate(longer), f.backtest(longer, 240)
            return [
                f.predict(), f.predict(7), high - low, again.predict(7), *again.predict_interval(),
                *((r.series[0].forecast, r.series[0].low) for r in (judged, tested)),
            ]  # fmt: skip

        f = quick(horizon=3).fit(waves())
        before = everything(f)
        f.set_params(**{name: value})
        assert f.get_params()[name] == value
        for a, b in zip(everything(f), before, strict=True):
            assert np.array_equal(a, b)

    def test_the_next_fit_takes_it(self):
        f = quick(horizon=3).fit(waves()).set_params(horizon=5)
        assert f.predict().shape == (3,)
        assert f.fit(waves()).predict().shape == (5,)
        assert np.array_equal(f.predict(), quick(horizon=5).fit(waves()).predict())

    def test_each_step_has_an_interval_of_its_own_width(self):
        f = quick(horizon=3).fit(np.cumsum(np.random.default_rng(0).standard_normal(240)))
        low, high = f.set_params(horizon=5).predict_interval()
        assert len(set(high - low)) == 3


class TestTraining:
    def test_minibatches_and_quantiles_are_trained_to_the_last_update(self):
        """The cosine counts updates: its rate falls over all epochs and not within the first."""
        settings = {"batch_size": 16, "epochs": 12, "patience": None}
        for more in ({"intervals": "quantile"}, {}):
            f = quick(**settings, **more).fit(waves())
            updates = 12 * -(-len(prepared_of(f).trained.x) // 16)
            state = f.results_[0].state
            assert state.optimizer.learning_rate == rx.optim.Cosine(0.01, updates)
            losses = f.history_[0]["loss"]
            assert len(losses) == 12
            assert len(set(losses)) == 12, "the weights move until the end"

    def test_without_validation_all_windows_are_trained_on(self):
        values = waves()
        f = quick(horizon=2, validation=None, intervals=None, patience=None).fit(values)
        trained = prepared_of(f, horizon=2, validation=None, intervals=None).trained
        assert len(trained.x) == 240 - 8 - 2 + 1
        scaler = f.fitted.designs[0].scaler
        np.testing.assert_allclose(scaler.offset, values.mean())
        assert np.array_equal(trained.y[-1], scaler.transform(values[-2:]))
        assert f.report_ is None
        assert f.history_[0].keys() == {"loss"}
        with pytest.raises(ValueError, match="there are no intervals"):
            f.predict_interval()
        with pytest.raises(ValueError, match="intervals='split' needs validation, whose errors"):
            quick(validation=None, intervals="split").fit(values)

    def test_the_plain_network_is_that_of_fit(self):
        """Without linear path, validation and intervals: to the bit."""
        values = waves()
        f = quick(linear=False, validation=None, intervals=None, patience=None).fit(values)
        scaled = (values - values.mean()) / values.std()
        x, y = rx.make_windows(scaled.astype("float32"), seq_length=8)
        net = rx.Network(hidden_size=4)
        optimizer = rx.optim.suited(net.num_parameters, len(x))
        result = rx.fit(net, x, y, optimizer=optimizer, epochs=8, seed=0)
        assert f.history_[0] == result.history
        for name, p in result.params.items():
            assert np.array_equal(f.predictor_.networks[0][name], p)

    def test_resumed_to_the_bit(self, tmp_path):
        from rnn_xp.callbacks import Checkpoint

        values, settings = waves(), {"optimizer": rx.optim.adam(0.02), "batch_size": 40}
        whole = quick(**settings).fit(values)
        keep = Checkpoint(tmp_path)
        quick(**settings, epochs=3).fit(values, callbacks=[keep])
        again = quick(**settings).fit(values, resume=keep.last)
        assert again.history_ == whole.history_
        assert np.array_equal(again.predict(5), whole.predict(5))
        with pytest.raises(ValueError, match="n_seeds=2 trains several: begin it anew"):
            quick(**settings, n_seeds=2).fit(values, resume=keep.last)

    def test_what_is_not_known_to_fit(self):
        with pytest.raises(TypeError, match="Forecaster.fit has no argument 'pasts'; callbacks"):
            quick().fit(waves(), pasts=None)

    def test_numbers_of_numpy_are_numbers(self, tmp_path):
        f = quick(seq_length=np.int64(8), level=np.float32(0.75), random_state=np.int64(3))
        f.fit(waves()).save(tmp_path / "f")
        found = rx.Forecaster.load(tmp_path / "f")
        assert np.array_equal(found.predict(2), f.predict(2))
        assert (type(found.seq_length), type(found.level)) == (int, float)

    def test_every_option_of_the_network(self):
        options = {
            "cell": "gru", "num_layers": 2, "bidirectional": True, "read": "mean", "dropout": 0.1,
            "recurrent_dropout": 0.1, "layer_norm": True, "residual": True, "reset_after": False,
        }  # fmt: skip
        f = quick(**options, epochs=2).fit(waves())
        net = f.predictor_.net
        assert all(getattr(net, name) == value for name, value in options.items())
        assert np.isfinite(f.predict(3)).all()


class TestApply:
    def test_it_goes_on_from_other_values(self):
        values = waves(260)
        f = quick(horizon=2, intervals="split").fit(values[:240])
        expected = f.evaluate(values).series[0].forecast[10]
        again = f.apply(values[:250])
        np.testing.assert_allclose(again.predict(), expected, rtol=1e-6)
        assert not np.isclose(f.predict()[0], expected[0]), "and f stays where it was"
        low, high = again.predict_interval()
        radius = np.subtract(*f.predict_interval()[::-1])
        np.testing.assert_allclose(high - low, radius)

    def test_what_does_not_fit_is_refused(self):
        f = quick().fit({"a": waves(), "b": waves(seed=1)})
        with pytest.raises(ValueError, match="was fitted on 2 series, got 1"):
            f.apply(waves())
        one = quick().fit(waves(), future=waves(seed=1))
        with pytest.raises(ValueError, match="fit was given 1 features, but there are 0"):
            one.apply(waves())
        with pytest.raises(ValueError, match="has 3 values, but a forecast needs the last 8: 5 mo"):
            quick().fit(waves()).apply(waves(3)).predict()


def prepared_of(f, **options):
    return prepare(quick(**options), as_panel(waves()))


def _longer(design, rows):
    """The same with rows after its end, so that they may be asked for."""
    pad = np.zeros((rows, 0))
    return dataclasses.replace(
        design,
        levels=np.concatenate([design.levels, np.zeros(rows)]),
        z=np.concatenate([design.z, np.zeros(rows)]),
        known=np.concatenate([design.known, np.ones(rows, bool)]),
        past=np.concatenate([design.past, pad]),
        future=np.concatenate([design.future, pad]),
    )
