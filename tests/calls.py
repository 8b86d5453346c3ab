"""What tests have other processes call; imports nothing heavy."""

import importlib
import os
import signal
import sys
import time


def hold(path):
    """Has a file for a minute, or until it is interrupted."""
    try:
        with open(path, "w"):
            time.sleep(60)
    finally:
        os.unlink(path)


def length(data):
    return len(data)


def out_of_memory(_):
    raise MemoryError


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def loads_of_the_codec(setup, fingerprint):
    """How often this process has loaded codecs."""
    from gmm_attention import start_up

    setup.codec(fingerprint)
    return start_up._load.cache_info().misses


def import_from(folder):
    """Imports `slow`, a module in the folder, and then holds a file there."""
    sys.path.insert(0, str(folder))
    importlib.import_module("slow")
    hold(folder / "held")
