"""What `benchmarks/gpu` does, section by section, each in a process of its own.

A section is a generator of plain records, which are written down one by one, so that those of a
section that is stopped are not lost. A record says ``what`` it is about and, where that can hold or
not, whether it ``holds``; ``error`` is the traceback of what failed.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import traceback

import rnn_xp as rx
from benchmarks.cpu import CELLS, SIZES, Case

LARGE = (83_170, 10, 1, 50)
TINY_SIZES = ((16, 4, 1, 5),)


class LeftOutError(Exception):
    """There is no such thing here, which is no failure."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where to compute: a CUDA GPU, or in a dry run stand-ins for it on the CPU, at tiny sizes.

    Parameters
    ----------
    dry : bool
    """

    dry: bool

    @functools.cached_property
    def cupy(self):
        import cupy

        return cupy

    def backend(self, dtype="float32"):
        return rx.get_backend("numpy" if self.dry else "cupy", dtype=dtype)

    def synchronize(self):
        if not self.dry:
            self.cupy.cuda.get_current_stream().synchronize()

    def cases(self, only=""):
        """All cases in whose name the regular expression occurs, the most telling ones first."""
        sizes = TINY_SIZES if self.dry else (SIZES[0], LARGE, *SIZES[1:])
        cases = [Case(cell, *size) for size in sizes for cell in CELLS]
        return [case for case in cases if re.search(only, str(case))]


def attempt(what, function, *args):
    """What a function returns, a dict, as a record; or a record of how it failed."""
    try:
        return {"what": what, **function(*args)}
    except LeftOutError as error:
        return {"what": what, "note": str(error)}
    except Exception:
        return {"what": what, "holds": False, "error": without_folders(traceback.format_exc())}


def without_folders(text):
    """A traceback without where things lie on this machine."""
    return re.sub(
        r'File "[^"\n]*?/(?=scripts/|benchmarks/|rnn_xp/|site-packages/|python3[^/"]*/)',
        'File "',
        text,
    )
