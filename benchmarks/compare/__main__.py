"""Run a comparison: ``python -m benchmarks.compare [classification|forecasting]``, or both."""

from __future__ import annotations

import importlib
import sys

PARTS = ("classification", "forecasting")


def main(argv: list[str]) -> int:
    """Run the named comparisons, and return the exit status."""
    first = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    names, options = argv[:first] or list(PARTS), argv[first:]
    if unknown := [name for name in names if name not in PARTS]:
        print(f"benchmarks.compare: {unknown[0]} is not one of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    return max(
        importlib.import_module(f"benchmarks.compare.{name}").main(options) for name in names
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
