"""Runs gmm_attention.commands.evaluate; see --help."""

import sys

from gmm_attention.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
