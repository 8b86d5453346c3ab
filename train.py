"""Runs gmm_attention.commands.train; see --help."""

import sys

from gmm_attention.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
