"""The levels of the packages: each imports from lower levels only."""

ROWS = (  # level 0 first; a package imports from lower levels only
    "_typing _checks",
    "backend data checkpoint",
    "kernels distributed",
    "cells losses optim",
    "network",
    "engines interchange testing",
    "training explain",
    "forecasting estimators callbacks",
    "cli",
    "__main__",
)
LEVELS = {name: level for level, row in enumerate(ROWS) for name in row.split()}
