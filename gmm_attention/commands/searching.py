"""What one sees of the search that `--effort` asks for, and how Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator

from gmm_attention import cli
from gmm_attention.codec.efforts import Progress

# Whether Ctrl-C has ended a search of this worker, in whose queue there may be more images.
_interrupted = False


class Watch:
    """The search of one image, as its user sees it.

    Attributes:
      interrupted: whether Ctrl-C came, which ends the search.
    """

    interrupted = False

    def listen(self, progress: Progress) -> bool:
        """A `Listener`, which shows the progress beside the bar."""
        change = progress.loss / progress.first - 1 if progress.first else 0
        cli.show_beside_bar(
            f"step {progress.step}/{progress.steps}, loss {progress.loss:.4f} ({change:+.1%})"
        )
        return self.interrupted


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Has Ctrl-C end a search early, so that the block can still write what was found.

    The signal takes its usual course at the end of the block, or at once if it comes twice.

    Yields:
      Watch.
    """
    watch = Watch()
    if threading.current_thread() is not threading.main_thread():  # signals do not come here
        yield watch
    elif signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        with _watched_here(watch):
            yield watch
    elif multiprocessing.parent_process():
        with _watched_in_worker(watch):
            yield watch
    else:  # as a shell script has it for what runs in the background
        yield watch


@contextlib.contextmanager
def _watched_here(watch: Watch) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)

    def receive(*_: object) -> None:
        watch.interrupted = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if watch.interrupted:  # also after an error, which must not let the next image begin
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def _watched_in_worker(watch: Watch) -> Iterator[None]:
    """Does the same where the parent process ends the search, by SIGTERM again and again.

    The terminal sends Ctrl-C to workers as well, which block and ignore it, see `Workers`. Here it
    is let in, and only counted. SIGTERM after one Ctrl-C may wait for the end of the block; after
    two, or after none, it takes its usual course at once.
    """
    global _interrupted
    if sys.platform == "win32":  # it has no such signals
        yield
        return
    if _interrupted:
        signal.raise_signal(signal.SIGTERM)
    usual, count = signal.getsignal(signal.SIGTERM), 0

    def receive(number: int, _: object) -> None:
        nonlocal count
        if number == signal.SIGINT:
            count += 1
        elif count == 1:
            watch.interrupted = True
        else:
            signal.signal(signal.SIGTERM, usual)
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # forgets what came before this image
    signal.signal(signal.SIGINT, receive)
    signal.signal(signal.SIGTERM, receive)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if signal.getsignal(signal.SIGTERM) == receive:
            signal.signal(signal.SIGTERM, usual)
            if watch.interrupted:
                _interrupted = True
                signal.raise_signal(signal.SIGTERM)
