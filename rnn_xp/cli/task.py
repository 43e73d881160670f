"""Make a `Forecaster` and a series in two parts from options, for commands that train."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rnn_xp._checks import Argument, ParameterError
from rnn_xp.backend import Backend
from rnn_xp.cli import options
from rnn_xp.cli.features import load_features, load_members, rows_before, together
from rnn_xp.cli.optimizers import add_optimizer_options, choose_optimizer
from rnn_xp.data.datasets import Series
from rnn_xp.data.scalers import range_warning
from rnn_xp.data.windows import num_windows, time_split
from rnn_xp.forecasting import Backtest, Forecaster
from rnn_xp.forecasting.fitted import Fitted
from rnn_xp.forecasting.panel import as_panel
from rnn_xp.forecasting.prepared import Prepared, prepare

__all__ = [
    "Task",
    "add_forecaster_options",
    "add_training_options",
    "check_parts",
    "first_judged",
    "judge_members",
    "judge_test_part",
    "load_data",
    "make_task",
    "resolve",
]

# What an option stands for where it was not given: of a forecaster, and of a plain network.
_DEFAULTS: dict[str, tuple[Any, Any]] = {
    "epochs": (200, 300),
    "validation": (0.15, None),
    "patience": (30, None),
    "intervals": ("adaptive", "none"),
}


_CHOSEN = ("seq_length", "hidden_size", "target")  # by the training rows, if they are "auto"


def add_forecaster_options(command: argparse.ArgumentParser) -> None:
    """Add the options of the forecaster."""
    add = command.add_argument_group(
        "forecaster, also --no-fallback (keep a network that earns nothing)"
    ).add_argument
    add(
        "--plain",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="no linear path, no validation, no refit, no intervals",
    )
    add("--no-linear", action="store_true", help="no linear path beside the cells")
    add("--target", default="level", choices=["level", "diff", "log", "logret", "auto"])
    add("--no-fallback", action="store_true", help=argparse.SUPPRESS)
    add("--strategy", default="direct", choices=["direct", "recursive"])
    kinds = ["adaptive", "split", "quantile", "none"]
    add("--intervals", choices=kinds, metavar="KIND", help="adaptive, split, quantile or none")
    add("--level", type=float, default=0.9, metavar="P", help="interval coverage (%(default)s)")
    add("--seeds", type=int, default=1, metavar="S", help="networks to average (%(default)s)")


def add_training_options(command: argparse.ArgumentParser) -> Any:
    """Add the options of the training; return the group, which a command may extend."""
    group = command.add_argument_group(
        "training, also --schedule {cosine,plateau} --warmup K --momentum M --weight-decay W "
        "--clip-norm C"
    )
    add = group.add_argument
    add("--epochs", type=int, metavar="E", help="maximum number of epochs (200; plain 300)")
    add("--batch-size", type=int, metavar="B", help="windows per update; all by default")
    add_optimizer_options(add)
    add("--validation", type=float, metavar="F", help="fraction to validate on (0.15; plain none)")
    add("--patience", type=int, metavar="K", help="stop after K epochs without a lower loss (30)")
    return group


def resolve(args: argparse.Namespace) -> argparse.Namespace:
    """Return the arguments, checked and with defaults for omitted ones."""
    args = argparse.Namespace(**vars(args))
    if args.patience is not None:
        options.check_whole("--patience", args.patience, 1)
    if args.plain and args.patience is not None and args.validation is None:
        raise ValueError("--patience needs --validation: it watches the validation loss.")
    for name, values in _DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, values[args.plain])
    args.no_linear = args.no_linear or args.plain
    for option, value, low in (
        ("--epochs", args.epochs, 1),
        ("--seed", args.seed, 0),
        ("--warmup", args.warmup, 1),
        ("--seeds", args.seeds, 1),
        ("--layers", args.layers, 1),
        ("--hidden-size", args.hidden_size, 1),
    ):
        options.check_whole(option, value, low)
    return args


@dataclass(frozen=True)
class Task:
    """A forecaster, and a series on whose first part it is trained.

    Attributes
    ----------
    args : Namespace
        See `resolve`.
    backend : Backend
    series : Series
    cut : int
        First row of the test part.
    forecaster : Forecaster
    prepared : Prepared
        The training part.
    reason : str
        The optimiser, and why it was chosen.
    features : dict
        The past and the future features of the whole series.
    members : dict of str to Series, or None
        The series of a long file, of which ``series`` is all together.
    """

    args: argparse.Namespace
    backend: Backend
    series: Series
    cut: int
    forecaster: Forecaster
    prepared: Prepared
    reason: str
    features: dict[str, Any]
    members: dict[str, Series] | None = None

    @property
    def judged(self) -> int:
        """Number of forecasts of the test part that are judged."""
        rows = [len(each.values) for each in (self.members or {"": self.series}).values()]
        firsts = [
            first_judged(cut, self.args.seq_length, plain=self.args.plain)
            for cut in (_cuts_of(self.members, self.args) if self.members else [self.cut])
        ]
        return sum(
            max(n - first - self.args.horizon + 1, 0) for n, first in zip(rows, firsts, strict=True)
        )

    def judge(self, fitted: Fitted) -> Backtest:
        """Judge a trained model on the test part."""
        if self.members is not None:
            return judge_members(fitted, self.members, self.args)
        return judge_test_part(
            fitted, self.series, self.cut, plain=self.args.plain, features=self.features
        )

    @property
    def warning(self) -> str:
        """A sentence if the test part leaves the range of the training part, else empty."""
        values = self.series.values
        if self.members is not None:  # the notes of the scores say it of each
            return ""
        return range_warning(values[: self.cut], values[self.cut :]) or ""


def _cuts_of(members: Mapping[str, Series], args: argparse.Namespace) -> list[int]:
    """Return the first row of the test part of each series."""
    fraction = args.train_fraction
    return [len(time_split(each.values, fraction)[0]) for each in members.values()]


def judge_members(
    fitted: Fitted, members: Mapping[str, Series], args: argparse.Namespace
) -> Backtest:
    """Judge a trained model on the test parts of the series of a long file."""
    cuts = _cuts_of(members, args)
    starts = [first_judged(cut, fitted.settings.seq_length, plain=args.plain) for cut in cuts]
    return fitted.evaluate_rows(as_panel(members), None, None, starts, 1, trains=cuts)


def first_judged(cut: int, seq_length: int, *, plain: bool) -> int:
    """Return the first row to judge.

    A forecaster is judged from the first row of the test part on, as in a backtest; a plain network
    from the first row whose window also lies in the test part.
    """
    return cut + seq_length if plain else cut


def load_data(args: argparse.Namespace) -> tuple[Series, dict[str, Series] | None]:
    """Load the series that the options name; those of a long file together and by name."""
    members = load_members(args)
    if members is None:
        return options.load_series(args), None
    return together(args.data, members), members


def make_task(
    args: argparse.Namespace, backend: Backend, series: Series,
    members: dict[str, Series] | None = None,
) -> Task:  # fmt: skip
    """Cut the series, and make the forecaster that the options describe.

    Parameters
    ----------
    args : Namespace
        See `resolve`.
    backend : Backend
    series : Series
    members : dict of str to Series, optional
        The series of a long file.

    Returns
    -------
    Task

    Raises
    ------
    ValueError
        If options contradict each other, or a part of the series is too short.
    """
    features = load_features(args, series)
    rows = [len(each.values) for each in (members or {"": series}).values()]
    if members is None:
        seen, _ = time_split(series.values, args.train_fraction)
        cuts, panel = [len(seen)], as_panel(seen)
    else:
        cuts, panel = _cuts_of(members, args), as_panel(members)
        panel = panel.before(cuts)
    test = min(n - cut for n, cut in zip(rows, cuts, strict=True))
    forecaster = Forecaster(
        seq_length=args.seq_length, horizon=args.horizon, cell=args.cell,
        hidden_size=args.hidden_size, num_layers=args.layers, bidirectional=args.bidirectional,
        activation=args.activation, read=args.read, dropout=args.dropout,
        recurrent_dropout=args.recurrent_dropout, layer_norm=args.layer_norm,
        residual=args.residual, reset_after=not args.reset_before, strategy=args.strategy,
        target=args.target, linear=not args.no_linear, scaler=args.scaler,
        fallback=not (args.no_fallback or args.plain),
        intervals=None if args.intervals == "none" else args.intervals, level=args.level,
        epochs=args.epochs, batch_size=args.batch_size, validation=args.validation,
        refit=not args.plain, patience=args.patience, n_seeds=args.seeds,
        random_state=args.seed, backend=backend, verbose=False,
    )  # fmt: skip
    try:
        prepared = prepare(forecaster, panel, **rows_before(features, cuts[0]))
    except ParameterError as error:
        if "is too short" not in error.reason:
            raise
        share = f"--train-fraction {args.train_fraction:g} of {len(series.values)} rows: "
        raise error.within(share) from error
    chosen = {name: getattr(prepared.settings, name) for name in _CHOSEN}
    args = argparse.Namespace(**{**vars(args), **chosen})
    _check_test_part(test, args.seq_length, args.horizon, plain=args.plain)
    windows = len(prepared.trained.x)
    options.check_whole("--batch-size", args.batch_size, 1, windows)
    optimizer, reason = choose_optimizer(args, windows, prepared.net)
    forecaster.set_params(optimizer=optimizer)
    prepared = dataclasses.replace(prepared, settings=forecaster.frozen())
    cut = sum(cuts)
    return Task(args, backend, series, cut, forecaster, prepared, reason, features, members)


def check_parts(cut: int, rows: int, seq_length: int, horizon: int, *, plain: bool) -> None:
    """Check that the rows before ``cut`` hold a window, and that those from it on can be judged."""
    try:
        num_windows(cut, seq_length, horizon)
    except ParameterError as error:
        raise error.within(f"the part of {cut} values to judge by is too short: ") from error
    _check_test_part(rows - cut, seq_length, horizon, plain=plain)


def _check_test_part(rows: int, seq_length: int, horizon: int, *, plain: bool) -> None:
    """Check that the test part is long enough to judge forecasts."""
    try:
        if plain:
            num_windows(rows, seq_length, horizon)
        elif rows < horizon:
            raise ParameterError("{0} needs as many.", Argument("horizon", horizon))
    except ParameterError as error:
        raise error.within(
            f"the test part of {rows} values is too short, and a smaller --train-fraction makes it "
            "longer: "
        ) from error


def judge_test_part(
    fitted: Fitted, series: Series, cut: int, *, plain: bool, features: dict[str, Any]
) -> Backtest:
    """Judge a trained model on the rows of a series from ``cut`` on."""
    first = first_judged(cut, fitted.settings.seq_length, plain=plain)
    panel = as_panel(series)
    return fitted.evaluate_rows(panel, **features, starts=[first], stride=1, trains=[cut])
