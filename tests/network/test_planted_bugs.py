"""Mistakes in backpropagation through time, planted line by line, and all caught.

Each entry is a line of the source as it stands and as a tired engineer might have written it. The
module is compiled anew with that one change and put into place, and the check that users call must
fail. The classic five come first: under each of them the loss still falls, which is why a falling
loss proves nothing.
"""

from __future__ import annotations

import pytest
from planting import plant
from problems import CELLS as OWN_CELLS
from problems import EXAMPLES, Problem, everything
from products import check_hvp_and_gnvp, check_jacobian_and_jvp, check_per_sample_grads

from rnn_xp.testing import GradientError, check_gradients, compare_gradients

pytestmark = pytest.mark.usefixtures("mingru")

CELLS = OWN_CELLS | EXAMPLES

CLASSIC = {
    "drop t = 0": (
        "sequence",
        "    return Backward(shares,",
        "    shares[0] = map_state(lambda a: 0.0 * a, shares[0])\n    return Backward(shares,",
    ),
    "forget the state's share": ("cells.rnn.RNNCell", "RNNState(dh)", "RNNState(0.0 * dh)"),
    "transpose w_hh": (
        "cells.rnn.RNNCell",
        'dh = xp.matmul(da, params["w_hh"])',
        'dh = xp.matmul(da, params["w_hh"].T)',
    ),
    "use h_t for h_{t-1}": ("cells.rnn.RNNCell", "Share(dz, cache.h_in", "Share(dz, cache.h"),
    "missing f'": (
        "cells.rnn.RNNCell",
        "dz = self.activation.backward(dstate.h, cache.h, xp=xp)",
        "dz = dstate.h",
    ),
}

CELL_MUTATIONS = {
    "rnn-tanh": (
        "cells.rnn.RNNCell",
        [
            ("backward(dstate.h, cache.h", "backward(dstate.h, cache.h_in"),
            ("backward(dstate.h, cache.h", "backward(-dstate.h, cache.h"),
            ("backward(dstate.h, cache.h", "backward(dstate.h * dstate.h, cache.h"),
            ("backward(dstate.h, cache.h", "backward(1.0001 * dstate.h, cache.h"),
            ('dh = xp.matmul(da, params["w_hh"])', 'dh = da @ params["w_hh"].T'),
            ('dh = xp.matmul(da, params["w_hh"])', 'dh = dstate.h @ params["w_hh"]'),
            ('dh = xp.matmul(da, params["w_hh"])', "dh = da"),
            ('dh = xp.matmul(da, params["w_hh"])', "dh = 0.0 * da"),
            ("Share(dz, cache.h_in", "Share(dz, cache.h"),
            ("Share(dz, cache.h_in", "Share(dstate.h, cache.h_in"),
            ("Share(dz, cache.h_in", "Share(dz, 0.0 * cache.h_in"),
            ("RNNState(dh)", "RNNState(dh + 1e-9 * dz)"),
        ],
    ),
    "gru": (
        "cells.gru.GRUCell",
        [
            ("dn = dstate.h * (1.0 - z)", "dn = dstate.h * z"),
            ("dn = dstate.h * (1.0 - z)", "dn = dstate.h"),
            ("dz = dstate.h * (h_prev - n)", "dz = dstate.h * (n - h_prev)"),
            ("dz = dstate.h * (h_prev - n)", "dz = dstate.h * h_prev"),
            ("dp_n = dn * (1.0 - n * n)", "dp_n = dn"),
            ("dp_n = dn * (1.0 - n * n)", "dp_n = dn * (1.0 - n)"),
            ("dq = dp_n * r", "dq = dp_n"),
            ("dp_r = dp_n * q * r * (1.0 - r)", "dp_r = dp_n * h_prev * r * (1.0 - r)"),
            ("dp_r = dp_n * q * r * (1.0 - r)", "dp_r = dp_n * q * (1.0 - r)"),
            ("dp_z = dz * z * (1.0 - z)", "dp_z = dz * z"),
            ("xp.concat([dp_r, dp_z, dq]", "xp.concat([dp_r, dp_z, dp_n]"),
            ("xp.concat([dp_r, dp_z, dp_n]", "xp.concat([dp_z, dp_r, dp_n]"),
            ("GRUShare(share, dq)", "GRUShare(share, dp_n)"),
            ("GRUState(dh + dstate.h * z)", "GRUState(dh)"),
            ("GRUState(dh + dstate.h * z)", "GRUState(dh + dstate.h * (1.0 - z))"),
        ],
    ),
    "gru-reset-before": (
        "cells.gru.GRUResetBeforeCell",
        [
            ("dn = dstate.h * (1.0 - z)", "dn = dstate.h * z"),
            ("dz = dstate.h * (h_prev - n)", "dz = dstate.h * (n - h_prev)"),
            ("dp_n = dn * (1.0 - n * n)", "dp_n = dn * n"),
            ("ds = xp.matmul(da_n, w_n)", "ds = da_n @ w_n.T"),
            ("ds = xp.matmul(da_n, w_n)", "ds = da_n"),
            ("dp_r = ds * h_in * r * (1.0 - r)", "dp_r = ds * r * (1.0 - r)"),
            ("dp_r = ds * h_in * r * (1.0 - r)", "dp_r = ds * s * r * (1.0 - r)"),
            ("dp_z = dz * z * (1.0 - z)", "dp_z = dz * (1.0 - z)"),
            ("xp.matmul(da, w) + ds * r", "xp.matmul(da, w)"),
            ("xp.matmul(da, w) + ds * r", "xp.matmul(da, w) + ds"),
            ("GRUResetBeforeShare(share, s, da_n", "GRUResetBeforeShare(share, h_in, da_n"),
            ("[dp_r, dp_z, dp_n]", "[dp_r, dp_z, ds]"),
        ],
    ),
    "lstm": (
        "cells.lstm.LSTMCell",
        [
            ("do = dstate.h * tanh_c", "do = dstate.h"),
            ("dc = dstate.c + dstate.h * o", "dc = dstate.h * o"),
            ("dc = dstate.c + dstate.h * o", "dc = dstate.c - dstate.h * o"),
            ("o * (1.0 - tanh_c * tanh_c)", "o * (1.0 - tanh_c)"),
            ("o * (1.0 - tanh_c * tanh_c)", "(1.0 - tanh_c * tanh_c)"),
            ("dc * g * i * (1.0 - i)", "dc * i * (1.0 - i)"),
            ("dc * g * i * (1.0 - i)", "dc * g * i"),
            ("dc * c_prev * f * (1.0 - f)", "dc * g * f * (1.0 - f)"),
            ("dc * i * (1.0 - g * g)", "dc * i * g * (1.0 - g)"),
            ("dc * i * (1.0 - g * g)", "dc * (1.0 - g * g)"),
            ("do * o * (1.0 - o)", "dc * o * (1.0 - o)"),
            ("LSTMState(dh, dc * f)", "LSTMState(dh, dc)"),
            ("LSTMState(dh, dc * f)", "LSTMState(dh, dstate.c * f)"),
            ("LSTMState(dh, dc * f)", "LSTMState(dh, dc * i)"),
        ],
    ),
    "mingru": (
        "extending.MinGRUCell",
        [
            ("dz = dstate.h * (n - h_prev)", "dz = dstate.h * (h_prev - n)"),
            ("dz = dstate.h * (n - h_prev)", "dz = dstate.h * n"),
            ("dz = dstate.h * (n - h_prev)", "dz = n - h_prev"),
            ("dn = dstate.h * z", "dn = dstate.h"),
            ("dn = dstate.h * z", "dn = dstate.h * (1.0 - z)"),
            ("dp_z = dz * z * (1.0 - z)", "dp_z = dz"),
            ("dp_z = dz * z * (1.0 - z)", "dp_z = dz * z"),
            ("dp_z = dz * z * (1.0 - z)", "dp_z = dz * (1.0 - z)"),
            ("dp_z = dz * z * (1.0 - z)", "dp_z = dz * (1.0 - z * z)"),
            ("dh = dstate.h * (1.0 - z)", "dh = dstate.h * z"),
            ("dh = dstate.h * (1.0 - z)", "dh = dstate.h"),
            ("dh = dstate.h * (1.0 - z)", "dh = 0.0 * dstate.h"),
            ("xp.concat([dp_z, dp_n]", "xp.concat([dp_n, dp_z]"),
            ("MinGRUState(dh)", "MinGRUState(dh + 1e-9 * dz)"),
        ],
    ),
}

MANY = {"topology": "many_to_many"}
DEEP = {"num_layers": 2, "bidirectional": True, "residual": True, "dropout": 0.4}
ELSEWHERE = [  # where, what, by what, in which network, with which options of the call
    # The time loop, its masks and resets.
    ("sequence", "dstate[0] + dh", "dh", MANY, ()),
    ("sequence", "dstate[0] + dh", "dstate[0]", MANY, ()),
    ("sequence", "reversed(schedule.order(steps))", "schedule.order(steps)", MANY, ()),
    ("sequence", "through = _zero_where(~mask,", "through = _zero_where(mask,", MANY, ("mask",)),
    ("sequence", "lambda a, b: a + b, dstate, beside", "lambda a, b: a, dstate, beside", MANY,
     ("mask",)),
    ("sequence", "step_back(params, through,", "step_back(params, dstate,", MANY, ("mask",)),
    (
        "sequence",
        "            dstate = _zero_where(schedule.reset[t, ...], dstate, xp=xp)\n    return",
        "            pass\n    return",
        MANY,
        ("reset",),
    ),
    # What cells share: layer normalisation, the input's side, the weight gradients.
    *(
        ("cells.gates", old, new, {"cell": "gru", "layer_norm": True, "num_layers": 2}, ())
        for old, new in (
            ("return normalise_back(dout * gain,", "return normalise_back(dout,"),
            ("xp=xp), dout * cache.n", "xp=xp), dout"),
            ("da = share.dz if share.da is None else share.da", "da = share.dz"),
            ("sum_rows(dgain_x, xp=xp)", "sum_rows(share.dgain, xp=xp)"),
            ("sum_rows(share.dgain, xp=xp)", "sum_rows(dgain_x, xp=xp)"),
            ("xp.matrix_transpose(da_x), xs", "xp.matrix_transpose(share.dz), xs"),
            ("return linear_back(share.dz, gain, norm, xp=xp)", "return share.dz, share.dz"),
            ('return xp.matmul(da, params["w_xh"])', 'return xp.matmul(share.dz, params["w_xh"])'),
            ('"b_h": sum_rows(share.dz, xp=xp)', '"b_h": sum_rows(da, xp=xp)'),
        )
    ),
    *(
        (f"cells.{cell}", "dh if keep is None else dh * keep", "dh", options, ("rng",))
        for cell, options in (
            ("gru.GRUCell", {"cell": "gru", "recurrent_dropout": 0.4}),
            (
                "gru.GRUResetBeforeCell",
                {"cell": "gru", "reset_after": False, "recurrent_dropout": 0.4},
            ),
            ("lstm.LSTMCell", {"cell": "lstm", "recurrent_dropout": 0.4}),
        )
    ),
    (
        "extending.MinGRUCell",
        "dn if keep is None else dn * keep",
        "dn",
        {"cell": "mingru", "recurrent_dropout": 0.4},
        ("rng",),
    ),
    (
        "cells.rnn.RNNCell",
        "dh if cache.keep is None else dh * cache.keep",
        "dh",
        {"recurrent_dropout": 0.4},
        ("rng",),
    ),
    # The stack: directions, residual connections, dropout.
    ("layers.Layers", "dx if dxs is None else dxs + dx", "dx", DEEP, ("rng",)),
    ("layers.Layers", "dxs if keep is None else dxs * keep", "dxs", DEEP, ("rng",)),
    ("layers.Layers", "dh if past is None else dh + past", "dh", {**DEEP, **MANY}, ("rng",)),
    ("layers.Layers", "direction * size : (direction + 1) * size", ":size", DEEP, ("rng",)),
    ("layers.Layers", "mine.schedules[direction]", "mine.schedules[0]", DEEP, ("rng",)),
    # Reads and feeds.
    ("topology", "dhs = dh * share", "dhs = dh", {"read": "mean"}, ()),
    ("topology", "xp) == chosen, dh,", "xp) <= chosen, dh,", {"read": "max"}, ()),
    ("topology", "xp.where(number == chosen,", "xp.where(number <= chosen,", {"read": "max"}, ()),
    ("topology", "dh if t == end else None", "dh if t == 0 else None", {}, ()),
    ("topology", "return dxs[0:1, ...]", "return dxs[1:2, ...]", {"topology": "one_to_many"}, ()),
    (
        "topology",
        "return xp.sum(dxs, axis=0, keepdims=True)",
        "return dxs[0:1, ...]",
        {"topology": "one_to_many", "feed": "repeat"},
        (),
    ),
    # The linear path.
    *(
        (where, old, new, {"linear_lags": 2}, ("mask",))
        for where, old, new in (
            ("topology", "last = xp.where(mask[steps - lags :, ...], last,",
             "last = xp.where(mask[steps - lags :, ...] | True, last,"),
            ("topology", "last = xp.where(mask[steps - lags :, ...], last,",
             "last = xp.where(mask[:lags, ...], last,"),
            ("topology", "xp.reshape(dwindow, (rows, lags, size)), (1, 0, 2))",
             "xp.reshape(dwindow, (rows, size, lags)), (2, 0, 1))"),
            ("topology", "return xp.concat([before, last])",
             "return xp.concat([last, before])"),
            ("pipeline", "dxs = dxs + last_steps_back(", "dxs = last_steps_back("),
            ("pipeline", 'dwindow = _product("dwindow", dy, params["readout.w_xy"]',
             'dwindow = _product("dwindow", dy, 2.0 * params["readout.w_xy"]'),
            ("pipeline", "else [forward.h, forward.window]",
             "else [forward.h, forward.window[::-1, ...]]"),
        )
    ),
    # Feedback.
    *(
        (
            "feedback.FeedbackCell",
            old,
            new,
            {"topology": "one_to_many", "feed": "feedback", "num_layers": 2, "residual": True,
             "dropout": 0.4, "output_activation": "tanh"},
            ("rng",),
        )
        for old, new in (
            ("dnew._replace(h=dnew.h + dout)", "dnew._replace(h=dout)"),
            ("dx if between is None else dx * between", "dx"),
            ("dx + dout if self.layers.residual and layer else dx", "dx"),
            ("FeedbackState(dout, tuple(dstates))", "FeedbackState(0.0 * dout, tuple(dstates))"),
            ("self.activation.backward(dstate.pred, cache.pred, xp=xp)", "dstate.pred"),
            ("share.xs[layer], share.layers[layer]", "share.xs[0], share.layers[layer]"),
        )
    ),
    # The readout.
    ("pipeline", "net.output_function.backward(dout, forward.out, xp=xp)", "dout",
     {"output_activation": "softmax"}, ()),
    ("pipeline", '"readout.b_y": db', '"readout.b_y": db / dy.shape[0]', {}, ()),
    ("pipeline", "xp.permute_dims(dpred, (1, 0, 2)), xp=xp", "dpred, xp=xp", MANY, ()),
]  # fmt: skip


LINEAR = {"linear_lags": 2}
PRODUCTS = [  # the same, for what keeps samples apart and for products with second derivatives
    ("sequence", "lambda a: xp.permute_dims(a, (1, 0, 2)), stacked",
     "lambda a: xp.reshape(a, (a.shape[1], a.shape[0], a.shape[2])), stacked", MANY, ()),
    ("pipeline", "else [forward.h, forward.window]",
     "else [forward.h, forward.window[::-1, ...]]", LINEAR, ()),
    ("pipeline", "arrange(a, terms) for a in rights",
     "arrange(a, terms)[::-1, ...] for a in rights", {}, ()),
    ("per_sample.PerSample", "units[k, ...] +", "units[0, ...] +", MANY, ()),
    ("per_sample.PerSample", "units[k, ...] +", "units[count - 1 - k, ...] +", {}, ()),
    ("per_sample.PerSample", "total=total, terms", "total=None, terms", {}, ()),
    ("per_sample.PerSample", "sample_weight[start:stop", "sample_weight[: stop - start", {}, ()),
    ("per_sample.PerSample", "stacked = xp.stack(rows, axis=1)",
     "stacked = xp.stack(rows[::-1], axis=1)", MANY, ()),
    ("second_order.SecondOrder", "(1.0 - t * t)", "(1.0 - t)", {}, ()),
    ("second_order.SecondOrder", "xp.imag(grad) / _step_of(x)", "xp.real(grad)", {}, ()),
    ("second_order.SecondOrder", "dpred = xp.astype(task.dpred(pred)",
     "dpred = xp.astype(xp.real(task.dpred(pred))", {}, ()),
    ("second_order.SecondOrder", "xp.imag(dpred) / _step_of(x)", "xp.real(dpred)", {}, ()),
    ("second_order.SecondOrder", "forward = pipeline.run(net, params, x, task.options, xp=xp)",
     "forward = pipeline.run(net, params, 0.0 * x, task.options, xp=xp)", {}, ()),
    ("second_order.SecondOrder", 'direction.get("x"))', "None)", {}, ()),
    ("second_order.SecondOrder", 'along = direction.get("state")', "along = None", {}, ("state",)),
    ("second_order.SecondOrder", "rng=copy.deepcopy(rng)", "rng=rng",
     {"recurrent_dropout": 0.4}, ("rng",)),
    ("second_order.SecondOrder", "function, y, weight, total)",
     "function, y, sample_weight, total)", MANY, ("mask",)),
    ("second_order.SecondOrder", "(1j * _step_of(array))", "(1j * 1e-4)", {}, ()),
]  # fmt: skip


def check(problem):
    """The gradients of everything, from random upstream gradients of everything."""
    function, arguments = everything(problem)
    return compare_gradients(function, arguments, problem.vjp())


@pytest.mark.parametrize("every_entry", [False, True], ids=["one-direction", "every-entry"])
@pytest.mark.parametrize("name", CLASSIC, ids=lambda name: name.replace(" ", "-"))
def test_the_check_that_users_call_catches_the_classic_five(name, every_entry, monkeypatch):
    plant(monkeypatch, *CLASSIC[name])
    p = Problem()
    with pytest.raises(GradientError, match=r"the gradient of \S+ is wrong; worst entry"):
        check_gradients(p.net, p.params, p.x, p.y, every_entry=every_entry)


@pytest.mark.parametrize("name", CLASSIC, ids=lambda name: name.replace(" ", "-"))
def test_a_falling_loss_would_not_have_caught_it(name, monkeypatch):
    plant(monkeypatch, *CLASSIC[name])
    p = Problem()
    params, values = p.params, []
    for _ in range(60):
        loss, grads = p.net.value_and_grad(params, p.x, p.y)
        params = {k: v - 0.02 * grads[k] for k, v in params.items()}
        values.append(float(loss))
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize("name", CELL_MUTATIONS)
def test_at_least_ten_for_each_cell(name):
    assert len(CELL_MUTATIONS[name][1]) >= 10
    assert max(check(Problem(with_=("state",), **CELLS[name])).values()) < 1e-13  # unchanged


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        pytest.param(name, old, new, id=f"{name}: {old} -> {new}")
        for name, (_, lines) in CELL_MUTATIONS.items()
        for old, new in lines
    ],
)
def test_every_mistake_in_a_cell_is_caught(name, old, new, monkeypatch):
    plant(monkeypatch, CELL_MUTATIONS[name][0], old, new)
    with pytest.raises(GradientError):
        check(Problem(with_=("state",), **CELLS[name]))


@pytest.mark.parametrize(
    ("where", "old", "new", "options", "with_"),
    [pytest.param(*row, id=f"{row[0]}: {row[1]} -> {row[2]}".strip()) for row in ELSEWHERE],
)
def test_every_mistake_elsewhere_is_caught(where, old, new, options, with_, monkeypatch):
    check(Problem(with_=("state", *with_), **options))  # unchanged, it passes
    plant(monkeypatch, where, old, new)
    with pytest.raises(GradientError):
        check(Problem(with_=("state", *with_), **options))


@pytest.mark.parametrize(
    ("where", "old", "new", "options", "with_"),
    [pytest.param(*row, id=f"{row[0]}: {row[1]} -> {row[2]}") for row in PRODUCTS],
)
def test_every_mistake_in_jacobians_and_products_is_caught(
    where, old, new, options, with_, monkeypatch
):
    def check_products():
        p = Problem(with_=with_, **options)
        check_jacobian_and_jvp(p)
        check_per_sample_grads(p)
        check_hvp_and_gnvp(p)

    check_products()  # unchanged, it passes
    plant(monkeypatch, where, old, new)
    with pytest.raises(AssertionError, match=r"\d of \d|shape"):
        check_products()


def test_the_worst_entry_is_named_with_both_numbers(monkeypatch):
    p = Problem()
    right = p.net.value_and_grad(p.params, p.x, p.y)[1]["layer0.w_hh"][2, 1]
    plant(
        monkeypatch,
        "cells.gates",
        "    return grads\n",
        "    import numpy as np\n"
        '    grads["w_hh"] = grads["w_hh"] + 0.5 * (np.arange(16).reshape(4, 4) == 9)\n'
        "    return grads\n",
    )
    with pytest.raises(GradientError) as caught:
        check_gradients(p.net, p.params, p.x, p.y)
    message = str(caught.value)
    assert "the gradient of layer0.w_hh is wrong; worst entry layer0.w_hh[2, 1]" in message
    assert f"gradient {right + 0.5:.9g}, complex step {right:.9g}" in message
