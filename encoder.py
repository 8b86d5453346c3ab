"""Runs gmm_attention.commands.encoder; see --help."""

import sys

from gmm_attention.commands.encoder import main

if __name__ == "__main__":
    sys.exit(main())
