"""What the readers of the formats tell `reading` about a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from PIL import ImageFile

from gmm_attention.images.colour import Colours


class Damaged(Exception):
    """A file that is damaged; the message says how."""


class Refused(Exception):
    """A file that is not read; the message says why and, after a semicolon, what to do."""


class Source(NamedTuple):
    """A file of which the header has been read.

    Attributes:
      open: function that lets Pillow read the header anew, of a cleaned version of the file.
      colours: what the file says of its colours.
      orientation: EXIF's number for the way that the picture is stored, 1..8.
      pictures: number of them in the file.
      bits: per sample as stored, where Pillow's mode does not tell it.
      has_joined_bytes: Pillow takes the two bytes of 16-bit samples, gray and alpha, as four
        samples of 8 bits.
      clear_colour: samples of the colour that means transparency, as Pillow decodes them, or None.
      notes: what to warn of, in words that follow the file's name.
      inspect: function to call after decoding, which finds damage that decoders pass over. It
        raises Damaged, or returns a suspicion in words that follow the file's name, or "".
    """

    open: Callable[[], ImageFile.ImageFile]
    colours: Colours = Colours()
    orientation: int = 1
    pictures: int = 1
    bits: int = 8
    has_joined_bytes: bool = False
    clear_colour: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    inspect: Callable[[], str] = lambda: ""
