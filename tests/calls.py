"""What tests have other processes call; imports nothing heavy."""

import os
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


def out_of_memory():
    raise MemoryError
