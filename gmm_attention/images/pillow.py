"""Keeps Pillow from printing, warning, and minding its own limit of pixels."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import threading
import warnings
from collections.abc import Iterator

from PIL import Image

_limit_lock = threading.Lock()

_logger = logging.getLogger("PIL")


_quiet_lock = threading.Lock()
_num_quiet = 0  # how many threads are in a block of `quiet`
_before = contextlib.ExitStack()  # restores what was before the first of them


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back Python's warnings and Pillow's log records for the block, in all threads.

    They name no file, and show two lines of source code. What matters of them, `reading` says.
    """
    global _num_quiet
    with _quiet_lock:
        if _num_quiet == 0:
            _before.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            handler = logging.NullHandler()
            _before.callback(_logger.removeHandler, handler)
            _before.callback(setattr, _logger, "propagate", _logger.propagate)
            _logger.addHandler(handler)
            _logger.propagate = False
        _num_quiet += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _num_quiet -= 1
            if _num_quiet == 0:
                _before.close()


@contextlib.contextmanager
def no_limit() -> Iterator[None]:
    """Suspends Pillow's limit of pixels, a global variable of its module, for the block."""
    with _limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@functools.cache
def silence_libtiff() -> None:
    """Keeps Pillow's libtiff from printing what it finds in damaged files, which Pillow raises.

    Pillow leaves libtiff's printing as it is. Where libtiff is no library of its own, as on
    Windows, it cannot be reached, and goes on printing.
    """
    with contextlib.suppress(AttributeError, OSError):
        set_handler = ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_handler(None)
