"""Train the reference workload: 8317 windows of 10 days of length_of_day, in one full batch.

    python scripts/train.py
    RNN_XP_BACKEND=cupy python scripts/train.py
    python scripts/train.py --epochs 3 --seed 1

Takes the options of `rnn-xp train`, and adds `--plain`: the network alone. `--no-plain` trains the
forecaster of `rnn-xp train`.
"""

import sys

from rnn_xp.cli import main

if __name__ == "__main__":
    plain = [] if any(word.startswith("--resume") for word in sys.argv) else ["--plain"]
    sys.exit(main(["train", *plain, *sys.argv[1:]]))
