"""Train the reference workload: 8317 windows of 10 days of length_of_day, in one full batch.

    python scripts/train.py
    RNN_XP_BACKEND=cupy python scripts/train.py
    python scripts/train.py --epochs 3 --seed 1

Takes the options of `rnn-xp train`.
"""

import sys

from rnn_xp.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
