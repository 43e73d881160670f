"""A forward pass, a loss, and the backward pass that belongs to them."""

from __future__ import annotations

from typing import Any

from rnn_xp import losses
from rnn_xp._typing import Array, Loss, Namespace, Params
from rnn_xp.losses import resolve_loss
from rnn_xp.network import pipeline
from rnn_xp.network.call import Options, check
from rnn_xp.network.configuration import Configuration
from rnn_xp.network.pipeline import Pass, PassGrads

__all__ = ["flows_by_name", "loss_back"]


def loss_back(
    net: Configuration,
    params: Params,
    x: Array,
    y: Array,
    loss: str | Loss,
    sample_weight: Array | None,
    options: Options,
    *,
    total: Any = None,
    per_step: bool = False,
    flow: bool = False,
) -> tuple[Array, PassGrads, Pass]:
    """Compute a loss and back-propagate it through the whole network.

    Parameters
    ----------
    net : Configuration
    params, x, y, loss, sample_weight, total : as for `rnn_xp.Network.value_and_grad`
    options : Options
    per_step : bool
        If True, gradients have a leading axis T with the term of each step.
    flow : bool
        If True, dL/dh_t of every step is kept.

    Returns
    -------
    value : Array ()
    grads : PassGrads
    forward : Pass
        The forward pass, with its states.

    Raises
    ------
    ValueError
        For a wrong shape or name.
    TypeError
        For arrays of different libraries or dtypes.
    """
    function = resolve_loss(loss, net.output_activation)
    if net.topology == "one_to_many":
        if len(y.shape) < 2:
            raise ValueError(f"Network: y must have T steps, (N, T, ...), got {y.shape}.")
        options = options._replace(steps=y.shape[1])
    xp = check(net, params, x, options)
    forward = pipeline.run(net, params, x, options, xp=xp)
    weight = pipeline.loss_weight(net, x, y, sample_weight, options)
    if total is None:
        total = losses.total_weight(y, weight)
    value, dpred = function(pipeline.prediction(net, forward), y, weight, total)
    grads = pipeline.run_back(net, params, forward, dpred, None, per_step=per_step, flow=flow)
    return value, grads, forward


def flows_by_name(net: Configuration, grads: PassGrads, *, xp: Namespace) -> dict[str, Array]:
    """Stack dL/dh_t over time, (T, N, H), by the name of the layer and direction."""
    names = ["prediction"]
    if not net.feedback:
        names = [
            net.layers.prefix(layer, direction).removesuffix(".")
            for layer in range(net.num_layers)
            for direction in range(net.directions)
        ]
    return {name: xp.stack(flow) for name, flow in zip(names, grads.flows, strict=True)}
