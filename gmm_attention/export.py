"""Runs gmm_attention.commands.export: python -m gmm_attention.export CHECKPOINT models/NAME."""

import sys

from gmm_attention.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
