"""``python -m rnn_xp`` is ``rnn-xp``."""

import sys

from rnn_xp.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
