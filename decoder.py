"""Runs gmm_attention.commands.decoder; see --help."""

import sys

from gmm_attention.commands.decoder import main

if __name__ == "__main__":
    sys.exit(main())
