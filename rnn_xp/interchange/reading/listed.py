"""Layers that a file of Keras weights lists, also those without weights.

Such a file names the classes of its layers but none of their settings. A layer that changes
predictions and is no part of a network here is refused by its name; a few are right with a hint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["check"]

# Where Keras 3, and the last releases before it, list layers by their classes.
_HOLDERS = ("layers", "_layer_checkpoint_dependencies")
_READ = {"simple_rnn", "gru", "lstm", "rnn", "bidirectional", "dense"}
_WITHOUT_EFFECT = {
    *("input", "input_layer", "dropout", "spatial_dropout1d", "gaussian_noise"),
    *("gaussian_dropout", "activity_regularization", "alpha_dropout"),
}
_HINTS = {
    "global_average_pooling1d": ("read", "mean"),
    "global_max_pooling1d": ("read", "max"),
    "time_distributed": ("topology", "many_to_many"),
}
_BESIDE = {"vars", "top_level_model_weights", "optimizer", "optimizer_weights"}


def check(
    groups: Iterable[str], names: Iterable[str], hints: Mapping[str, Any], *, chosen: bool
) -> dict[str, str]:
    """Refuse layers that would be passed over, and return what is assumed of the others.

    Parameters
    ----------
    groups : iterable of str
        Groups of the file, with dots between their parts.
    names : iterable of str
        Arrays of the file.
    hints : mapping of str to object
        What the caller says, by the names of arguments of `rnn_xp.Network`.
    chosen : bool
        True if the caller names the recurrent layers and the readout: the rest is ignored then.

    Returns
    -------
    dict of str to str
        Assumptions, by what they are about.

    Raises
    ------
    ValueError
        If a layer has no place in a network here; it is named.
    """
    groups, names = list(groups), list(names)
    inside = [g for g in groups if g.rpartition(".")[0].rpartition(".")[2] in _HOLDERS]
    by_class = bool(inside)
    listed = inside or [g for g in groups if "." not in g and g not in _BESIDE]
    notes = {
        "settings": "the defaults of Keras; activations and return_sequences are not in such a file"
    }
    ignored = []
    for group in listed:
        if any(f"{group}.{holder}" in groups for holder in _HOLDERS):
            continue  # a model in a model
        kind = re.sub(r"_\d+$", "", group.rpartition(".")[2])
        with_arrays = any(name.startswith(f"{group}.") for name in names)
        known = kind in _READ or (with_arrays and not by_class and kind not in _HINTS)
        if known or kind in _WITHOUT_EFFECT:
            continue
        hint, value = _HINTS.get(kind, ("", ""))
        if hint and hints.get(hint) == value:
            continue
        if not chosen:
            raise ValueError(_refusal(group, hint, value))
        if not with_arrays:
            ignored.append(group)
    return notes | ({"ignored": ", ".join(ignored)} if ignored else {})


def _refusal(group: str, hint: str, value: str) -> str:
    if hint:
        return (
            f"lists a layer {group}, but weights alone do not say what it does to a prediction. "
            f"Give {hint}={value!r}, or save the model as .keras, which has the settings."
        )
    return (
        f"lists a layer {group}, whose settings are not in a file of weights. Save the model as "
        ".keras, which has them; or, if the layer changes no prediction, rnn= and readout= "
        "together ignore it."
    )
