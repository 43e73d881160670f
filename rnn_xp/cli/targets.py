"""Checks of the files that a command is to write, before it computes anything.

One rule holds for all commands: an existing file is replaced only with ``--force``.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from rnn_xp._checks import install

__all__ = ["FORCE", "check_file", "check_folder", "check_plots"]

FORCE = "replace existing files"
"""Help of ``--force`` where a command writes single files."""


def check_file(option: str, path: Path | None, *, force: bool, suffix: str = "") -> None:
    """Check that a file can be written.

    Parameters
    ----------
    option : str
        The option that names it, such as "--csv".
    path : path or None
        None if the option was not given, which needs no check.
    force : bool
        If True, an existing file may be replaced.
    suffix : str
        The suffix that the name must have, such as ".png"; any if empty.

    Raises
    ------
    ValueError
    """
    if path is None:
        return
    if suffix and path.suffix.lower() != suffix:
        raise ValueError(f"{option} {path} must end in {suffix}, which is what is written.")
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; name a file in it.")
    _check_parent(option, path)
    if path.exists() and not force:
        raise ValueError(f"{option} {path} exists already. Give another name, or --force.")


def check_folder(option: str, path: Path | None, names: tuple[str, ...], *, force: bool) -> None:
    """Check that files of these names can be written in a folder, which may not exist yet."""
    if path is None:
        return
    if not path.exists():
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        _check_writable(option, path, existing)
    else:
        _check_writable(option, path, path)
        for name in names:
            check_file(option, path / name, force=force)


def check_plots(option: str, path: Path | None) -> None:
    """Check that matplotlib is there if an option asks for a picture."""
    if path is None:
        return
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ValueError(
            f"{option} needs matplotlib. Install it with: {install('plot')}"
        ) from error


def _check_parent(option: str, path: Path) -> None:
    if not path.parent.exists():
        raise ValueError(f"{option} {path}: there is no folder {path.parent}. Make it first.")
    _check_writable(option, path, path.parent)


def _check_writable(option: str, path: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{option} {path}: {folder} is not a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{option} {path}: the folder {folder} cannot be written to.")
