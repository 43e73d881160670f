"""Every combination of cell, topology and option that exists, and the problem it names."""

from __future__ import annotations

import itertools

from covering import covering
from problems import CELLS as OWN_CELLS
from problems import EXAMPLES, OPTIONS, TOPOLOGIES, Problem, excluded

CELLS = OWN_CELLS | EXAMPLES
PRODUCT = [
    names for names in itertools.product(CELLS, TOPOLOGIES, OPTIONS) if not excluded(*names[1:])
]


# Every pair of cell, topology and option.
PAIRWISE = [PRODUCT[k] for k in covering([dict(enumerate(names)) for names in PRODUCT])]


def make(cell, topology, option, **sizes):
    options, with_ = OPTIONS[option]
    if cell == "mingru" and option == "dropout":
        # From a state of zeros a unit whose candidate is dropped stays 0, where max has a kink.
        with_ = (*with_, "state")
    return Problem(with_=with_, **{**CELLS[cell], **TOPOLOGIES[topology], **options, **sizes})


def ids(names):
    return "-".join(names)
