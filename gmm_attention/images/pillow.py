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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back Pillow's warnings and log records for the block.

    They name no file, and show two lines of source code. What matters of them, `reading` says.
    """
    handler, propagate = logging.NullHandler(), _logger.propagate
    _logger.addHandler(handler)
    _logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _logger.propagate = propagate
        _logger.removeHandler(handler)


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
