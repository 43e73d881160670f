"""Going on where training stopped, to the bit: in this process or another, from memory or file."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import runs
from runs import NET, RUNS, assert_same, fit, windows

import rnn_xp as rx
from rnn_xp import checkpoint
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.training import files
from rnn_xp.training.callbacks import Checkpoint

FLOAT64 = rx.get_backend("numpy", dtype="float64")


@pytest.mark.parametrize("name", RUNS)
class TestToTheBit:
    """Five epochs and five more are ten."""

    def test_from_memory(self, name):
        half = fit(name, 5)
        assert_same(fit(name, 10, resume=half.state), fit(name, 10))

    def test_from_a_file(self, name, tmp_path):
        keep = Checkpoint(tmp_path, every=1)
        fit(name, 5, callbacks=[keep])
        whole = fit(name, 10)
        resumed = fit(name, 10, resume=keep.last, callbacks=[keep])
        assert_same(resumed, whole)
        assert files.load(
            keep.last, RUNS[name][0], RUNS[name][2]["optimizer"], rx.get_backend()
        ).epoch == len(whole.history["loss"])

    def test_parameters_alone_are_not_enough(self, name):
        """But for plain gradient descent on the full batch, which remembers nothing."""
        half, whole = fit(name, 5), fit(name, 10)
        forgetful = fit(name, 5, params=half.params)
        same = all(np.array_equal(whole.params[k], p) for k, p in forgetful.params.items())
        assert same == (name == "sgd")


def test_in_a_new_process(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(Path(runs.__file__).parent)!r})
import runs
from rnn_xp.callbacks import Checkpoint
found = runs.fit("dropout-minibatches", int(sys.argv[1]), callbacks=[Checkpoint({str(tmp_path)!r})],
              resume={str(tmp_path / "last.safetensors")!r} if sys.argv[1] == "10" else None)
print([float(v).hex() for v in found.history["loss"]],
      [float(p.sum()).hex() for p in found.params.values()])
"""
    said = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code, epochs],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for epochs in ("5", "10")
    ]  # fmt: skip
    whole = fit("dropout-minibatches", 10)
    losses = [float(v).hex() for v in whole.history["loss"]]
    sums = [float(p.sum()).hex() for p in whole.params.values()]
    assert said[1].strip() == f"{losses} {sums}"


class TestWarmStart:
    def test_params_and_the_optimisers_state_go_on_with_other_data(self):
        x, y = windows()
        options = {"optimizer": rx.optim.adam(0.02), "backend": FLOAT64}
        half = rx.fit(NET, x, y, epochs=5, **options)
        warm = rx.fit(
            NET, x, y, epochs=5, params=half.params, opt_state=half.state.opt_state, **options
        )
        whole = rx.fit(NET, x, y, epochs=10, **options)
        assert warm.history["loss"] == whole.history["loss"][5:]
        other = rx.fit(
            NET, x[:40], y[:40], epochs=1, params=half.params, opt_state=half.state.opt_state,
            **options,
        )  # fmt: skip
        assert other.state.opt_state.step == 6

    def test_not_together_with_resume(self):
        half = fit("adam", 5)
        for extra in ({"params": half.params}, {"opt_state": half.state.opt_state}):
            with pytest.raises(ValueError, match="resume= brings its own params and opt_state"):
                fit("adam", 10, resume=half.state, **extra)


class TestNothingLeftToDo:
    def test_all_epochs_are_done(self):
        half = fit("validation", 5)
        again = fit("validation", 5, resume=half.state)
        assert_same(again, half)
        assert again.evaluations == half.evaluations

    def test_the_optimiser_had_stopped(self):
        stopped = fit("lbfgs", 50, optimizer=rx.optim.lbfgs(tolerance=1e-1))
        assert "within the tolerance" in stopped.stopped
        again = fit("lbfgs", 50, optimizer=rx.optim.lbfgs(tolerance=1e-1), resume=stopped.state)
        assert again.stopped == stopped.stopped
        assert_same(again, stopped)

    def test_patience_was_at_its_end_and_may_be_given_more(self):
        options = {"optimizer": rx.optim.adam(0.3), "patience": 2}
        early = fit("validation", 200, **options)
        assert "in 2 epochs" in early.stopped
        assert_same(fit("validation", 200, resume=early.state, **options), early)
        options["patience"] = 9
        later = fit("validation", 200, resume=early.state, **options)
        assert_same(later, fit("validation", 200, **options))
        assert len(later.history["loss"]) > len(early.history["loss"])


class TestAnotherRun:
    """Continued as something else, the bits would mean nothing: each difference is an error."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"optimizer": rx.optim.adam(0.03)}, r"optimizer 'Adam\(learning_rate=0.02"),
            ({"seed": 4}, "seed 3, but this one has 4"),
            ({"batch_size": 30}, "batch_size None, but this one has 30"),
            ({"loss": "mae"}, "loss 'mse', but this one has 'mae'"),
            ({"block_rows": 11}, "block_rows 1040, but this one has 11"),
            ({"truncate": (2, 2)}, r"truncate None, but this one has \[2, 2\]"),
            ({"sample_weight": np.full(90, 2.0)}, "has other values in its data than this one"),
            ({"validation": 0.2}, "has rows 90, but this one has"),
            ({"backend": FLOAT64}, "has dtype .float32., but this one has .float64."),
        ],
    )
    def test_is_refused(self, change, message):
        half = fit("adam", 5)
        net, data, settings = RUNS["adam"]
        with pytest.raises(ValueError, match=message):
            rx.fit(net, *data(), epochs=10, resume=half.state, **{"seed": 3, **settings, **change})

    def test_other_data_of_the_same_size(self):
        half = fit("adam", 5)
        x, y = windows()
        for other in ((x + 0.1, y), (x, y + 0.1)):
            with pytest.raises(ValueError, match="the run to resume has other values in its data"):
                rx.fit(
                    NET, *other, epochs=10, seed=3, optimizer=rx.optim.adam(0.02),
                    resume=half.state,
                )  # fmt: skip

    def test_another_network(self, tmp_path):
        keep = Checkpoint(tmp_path)
        half = fit("adam", 5, callbacks=[keep])
        options = {"epochs": 10, "seed": 3, "optimizer": rx.optim.adam(0.02)}
        other = rx.Network(hidden_size=9)
        for resume, error in ((half.state, ValueError), (keep.last, CheckpointError)):
            with pytest.raises(error, match="is of another network"):
                rx.fit(other, *windows(), resume=resume, **options)

    def test_another_place_is_a_warning(self):
        half = fit("adam", 5)
        moved = {**half.state.run, "where": {"backend": "numpy 1.0"}}
        state = dataclasses.replace(half.state, run=moved)
        with pytest.warns(UserWarning, match=r"was trained with .*numpy 1.0.* bits may differ"):
            found = fit("adam", 10, resume=state)
        assert_same(found, fit("adam", 10))


class TestAcrossBackends:
    @pytest.mark.full("jax")
    @pytest.mark.cover("values")
    def test_a_file_goes_on_elsewhere(self, case, tmp_path):
        """Written by one library, read by another: the same training but for rounding."""
        keep = Checkpoint(tmp_path)
        options = {"optimizer": rx.optim.adam(0.02), "epochs": 4, "validation": 0.2}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # says that it is another library
            here = rx.get_backend("numpy", dtype=case.dtype_name)
            rx.fit(NET, *windows(), backend=case.backend, callbacks=[keep], **options)
            options["epochs"] = 8
            there = rx.fit(NET, *windows(), backend=here, resume=keep.last, **options)
            back = rx.fit(NET, *windows(), backend=case.backend, resume=keep.last, **options)
        whole = rx.fit(NET, *windows(), backend=here, **options)
        rtol = 1e-9 if case.dtype_name == "float64" else 1e-3
        for found in (there, back):
            np.testing.assert_allclose(found.history["loss"], whole.history["loss"], rtol=rtol)
            assert found.best_epoch == whole.best_epoch
        assert isinstance(case.array([1.0]), type(back.params["layer0.b_h"]))

    def test_another_dtype_says_how_to_select_it(self, tmp_path):
        keep = Checkpoint(tmp_path)
        fit("adam", 5, callbacks=[keep])
        with pytest.raises(CheckpointError, match=r"is float32, but .* RNN_XP_DTYPE=float32"):
            fit("adam", 10, resume=keep.last, backend=FLOAT64)


def change(arrays, name, function):
    arrays[name] = function(arrays[name])


TAMPERINGS = {
    "lacks layer0.w_xh": lambda a, t: a.pop("layer0.w_xh"),
    "lacks best.layer0.b_h": lambda a, t: a.pop("best.layer0.b_h"),
    "unknown array, layer1.b_h": lambda a, t: a.update({"layer1.b_h": a["layer0.b_h"]}),
    "unknown array, other": lambda a, t: a.update(other=a["layer0.b_h"]),
    "unknown array, best.other": lambda a, t: a.update({"best.other": a["layer0.b_h"]}),
    r"layer0.b_h has shape \(7,\)": lambda a, t: change(a, "layer0.b_h", lambda b: b[1:]),
    "layer0.b_h is float64": lambda a, t: change(a, "layer0.b_h", np.float64),
    "m.layer0.b_h": lambda a, t: a.pop("optimizer.m.layer0.b_h"),
    "v.layer0.b_h": lambda a, t: a.update({"optimizer.v.layer0.b_h": np.ones(3, "f4")}),
    "lacks history.loss": lambda a, t: a.pop("history.loss"),
    "history.loss must": lambda a, t: a.update({"history.loss": a["history.loss"][1:]}),
    "history.other must": lambda a, t: a.update({"history.other": a["history.loss"]}),
    "epoch must be an integer >= 0, got -1": lambda a, t: t.update(epoch=-1),
    "epoch must be an integer >= 0, got True": lambda a, t: t.update(epoch=True),
    "epoch must be an integer >= 0, got 5.0": lambda a, t: t.update(epoch=5.0),
    "it lacks 'epoch'": lambda a, t: t.pop("epoch"),
    "it lacks 'optimizer'": lambda a, t: t.pop("optimizer"),
    "it lacks 'best'": lambda a, t: t.pop("best"),
    "evaluations must be": lambda a, t: t.update(evaluations="5"),
    "seconds must be": lambda a, t: t.update(seconds=-1.0),
    "no epoch can be the best: 6": lambda a, t: t["best"].update(epoch=6),
    "no epoch can be the best: 0": lambda a, t: t["best"].update(epoch=0),
    "does not say of when": lambda a, t: t.update(best=None),
    "does not describe its run": lambda a, t: t.update(run=[]),
    "is no training state of this version": lambda a, t: t.update(best=[1, 2]),
    "is no training state": lambda a, t: t.update(optimizer={"step": -1}),
}


class TestUntrustedFiles:
    """Content that is not of this run, under a digest that is right."""

    @pytest.fixture
    def content(self, tmp_path):
        keep = Checkpoint(tmp_path)
        fit("validation", 5, callbacks=[keep])
        return (keep.last, *checkpoint.load(keep.last))

    @pytest.mark.parametrize("message", TAMPERINGS)
    def test_each_is_named(self, content, message):
        path, arrays, about = content
        TAMPERINGS[message](arrays, about["training"])
        checkpoint.save(path, arrays, about)
        with pytest.raises(CheckpointError, match=message):
            fit("validation", 10, resume=path)

    def test_another_schema(self, content):
        path, arrays, about = content
        checkpoint.save(path, arrays, {**about, "schema": 2})
        with pytest.raises(CheckpointError, match="has schema 2, but this version reads 1"):
            fit("validation", 10, resume=path)

    def test_a_model_is_no_training(self, content):
        path, _, _ = content
        with pytest.raises(CheckpointError, match="holds a model, but no state of a training"):
            fit("validation", 10, resume=path.with_name("best.safetensors"))

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            fit("adam", 10, resume=tmp_path / "absent.safetensors")
