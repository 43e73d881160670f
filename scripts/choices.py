"""Options that choose some of known names, as in ``--only rnn,gru``."""

import argparse


def some_of(known):
    """Return the type of such an option, for argparse; what it gives is in the known order."""

    def parse(text):
        given = text.split(",")
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}. Choose from: {', '.join(known)}.")
        return [name for name in known if name in given]

    return parse
