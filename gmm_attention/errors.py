"""The exceptions of this project: what went wrong, in which file, and what to do about it."""


class CodecError(Exception):
    """Any failure that the user can do something about; the message says what."""


class ImageError(CodecError):
    """An image that cannot be read, written or coded."""


class BitstreamError(CodecError):
    """A coded file that is foreign, truncated, damaged, or made by another model."""


class CheckpointError(CodecError):
    """Weights that are missing, unknown, misshapen or outside the exact arithmetic's bounds."""


class TrainingError(CodecError):
    """Training that cannot go on: a loss that is not finite, or options that do not fit."""


class CurveError(CodecError):
    """A curve's file that cannot be read, or curves that cannot be compared."""
