"""Options of ``rnn-xp train`` that choose the optimiser."""

from __future__ import annotations

import argparse
from typing import Any

from rnn_xp import optim
from rnn_xp.network import Network
from rnn_xp.optim.first_order import FirstOrder
from rnn_xp.optim.names import OPTIMIZERS

__all__ = ["add_optimizer_options", "choose_optimizer"]

_RATES = {"adam": 0.01, "adamw": 0.01, "rmsprop": 0.003, "adagrad": 0.05, "sgd": 0.1}
_TITLES = {
    "lbfgs": "L-BFGS", "levenberg_marquardt": "Levenberg-Marquardt", "hessian_free": "Hessian-free",
}  # fmt: skip
_FIRST_ORDER_ONLY = ("learning_rate", "weight_decay", "clip_norm", "schedule", "warmup")


def add_optimizer_options(add: Any) -> None:
    """Add the options to a group of a parser, given its ``add_argument``.

    Options without a help text are listed in the title of the group.
    """
    rates = ", ".join(f"{name} {rate:g}" for name, rate in _RATES.items())
    words = "default by size; lbfgs, adam, sgd, levenberg_marquardt, ..."
    add("--optimizer", choices=list(OPTIMIZERS), metavar="NAME", help=words)
    add("--learning-rate", type=float, metavar="R", help=f"({rates})")
    add("--schedule", choices=["cosine", "plateau"], help=argparse.SUPPRESS)
    add("--warmup", type=int, help=argparse.SUPPRESS)
    for option in ("--momentum", "--weight-decay", "--clip-norm"):
        add(option, type=float, help=argparse.SUPPRESS)


def choose_optimizer(args: argparse.Namespace, rows: int, net: Network) -> tuple[Any, str]:
    """Choose the optimiser.

    Parameters
    ----------
    args : Namespace
    rows : int
        Number of windows to train on.
    net : Network

    Returns
    -------
    optimizer : Optimizer
    reason : str
        A description of the optimiser and of the reason for the choice.
    """
    full_batch = args.batch_size in (None, rows)
    noisy = bool(args.dropout or args.recurrent_dropout)
    kinks = args.intervals == "quantile"
    suited = optim.suited(net.num_parameters, rows, net.output_size)
    exact_name = "lbfgs" if isinstance(suited, optim.LBFGS) else "levenberg_marquardt"
    name = args.optimizer or (exact_name if full_batch and not noisy and not kinks else "adam")
    _check_options(args, name)
    if kinks and not args.optimizer and not args.schedule:
        args.schedule = "cosine"
    exact = OPTIMIZERS[name].full_batch_only
    if kinks and "value" in OPTIMIZERS[name].needs:
        raise ValueError(
            f"--optimizer {name} needs a loss with second derivatives, and that of --intervals "
            "quantile has kinks. Leave --optimizer out, or take --optimizer lbfgs."
        )
    if exact and (noisy or not full_batch):
        given = "dropout" if full_batch else f"--batch-size {args.batch_size}"
        raise ValueError(
            f"--optimizer {name} needs the full batch of {rows} without dropout: it "
            f"compares losses, which must belong to one function. Leave out {given}, or take "
            "--optimizer adam."
        )
    batch = f"full batch of {rows}" if full_batch else f"batches of {args.batch_size} from {rows}"
    if exact:
        why = "a full-batch gradient is exact, so its curvature can be used"
        decay = {} if args.weight_decay is None else {"weight_decay": args.weight_decay}
        if name != "levenberg_marquardt":
            return OPTIMIZERS[name](**decay), f"{batch}, {_TITLES[name]} ({why})"
        if not args.optimizer:
            why = f"{net.num_parameters} parameters are few enough for their J^T J"
        return optim.of_part(rows, net.output_size, **decay), f"{batch}, {_TITLES[name]} ({why})"
    updates = args.epochs * -(-rows // (args.batch_size or rows))
    asked = {key: getattr(args, key) for key in ("momentum", "weight_decay", "clip_norm")}
    extras = {key: value for key, value in asked.items() if value is not None}
    words = [f"{key.replace('_', ' ')} {value:g}" for key, value in extras.items()]
    words += [f"{args.schedule} schedule"] if args.schedule else []
    words += [f"warm-up of {args.warmup}"] if args.warmup else []
    if not args.optimizer:
        noise = "gradients with dropout" if full_batch else "gradients of minibatches"
        words.append(
            "the loss of quantiles has kinks; L-BFGS needs a smooth one"
            if full_batch and not noisy
            else f"{noise} are noisy; L-BFGS needs exact ones"
        )
    optimizer = OPTIMIZERS[name](_rate(args, name, updates), **extras)
    why = type(optimizer).__name__ + (f" ({', '.join(words)})" if words else "")
    return optimizer, f"{batch}, {why}"


def _check_options(args: argparse.Namespace, name: str) -> None:
    kind = OPTIMIZERS[name]
    for key in () if issubclass(kind, FirstOrder) else _FIRST_ORDER_ONLY:
        if getattr(args, key) is not None and not hasattr(kind, key):
            option = f"--{key.replace('_', '-')}"
            raise ValueError(
                f"{option} has no meaning for {name}, which finds the length of its steps; "
                "add --optimizer adam or sgd."
            )
    if args.momentum is not None and name not in ("sgd", "rmsprop"):
        raise ValueError(f"--momentum is for --optimizer sgd and rmsprop, not {name}.")


def _rate(args: argparse.Namespace, name: str, updates: int) -> Any:
    """Return the learning rate, or its schedule over all updates."""
    rate: Any = _RATES[name] if args.learning_rate is None else args.learning_rate
    if args.warmup is not None and args.schedule == "plateau":
        raise ValueError("--warmup does not go with --schedule plateau.")
    warmup = args.warmup or 0
    if args.schedule == "cosine":
        if warmup >= updates:
            raise ValueError(f"--warmup {warmup} leaves none of {updates} updates for the cosine.")
        rate = optim.Cosine(rate, updates - warmup)
    elif args.schedule == "plateau":
        rate = optim.ReduceOnPlateau(rate)
    return optim.WarmUp(warmup, rate) if warmup else rate
