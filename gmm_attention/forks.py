"""What happens around a fork, so that the child's first call does not wait for ever.

A fork copies the memory of all threads, but runs only the one that forked. A lock that another
thread held stays locked in the child, and threads that a library had started are missing there.
So a fork waits until no other thread is in a block that must not be cut in two (`delayed`), and
what belongs to such a library is made anew where `generation` has changed.

The processes of our own programs are never forked; this is for programs that import us. Windows
knows no fork.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from gmm_attention.errors import CodecError

_changed = threading.Condition()
_inside: list[int] = []  # the threads that are in a block, by their idents
_num_forking = 0
_generation = 0


def generation() -> int:
    """Returns how many forks lie between this process and the one that imported this module."""
    return _generation


def in_child(function: Callable[[], None]) -> None:
    """Has each forked child call a function, before any other code of ours runs in it."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def refuse(library: str, begun: int) -> None:
    """Refuses to go on with a library that does not survive a fork.

    Args:
      library: its name, for the message.
      begun: the generation of the process that started it.

    Raises:
      CodecError: this is a child of that process.
    """
    if begun != _generation:
        raise CodecError(
            f"{library} was started before this process was forked, and would hang in it; load the "
            'codec in the child only, or start processes by multiprocessing\'s "spawn"'
        )


@contextlib.contextmanager
def delayed() -> Iterator[None]:
    """Lets no other thread fork while this one is in the block, which must not call foreign code.

    A fork that waits goes before threads that are about to enter, or they might keep it waiting
    for ever.
    """
    this = threading.get_ident()
    with _changed:
        # A thread inside may enter again: its handler of a signal may code, too.
        _changed.wait_for(lambda: not _num_forking or this in _inside)
        _inside.append(this)
    try:
        yield
    finally:
        with _changed:
            _inside.remove(this)
            _changed.notify_all()


def _before() -> None:
    global _num_forking
    this = threading.get_ident()
    with _changed:
        _num_forking += 1
        _changed.wait_for(lambda: all(thread == this for thread in _inside))


def _after_in_parent() -> None:
    global _num_forking
    with _changed:
        _num_forking -= 1
        _changed.notify_all()


def _after_in_child() -> None:
    global _changed, _num_forking, _generation
    # Threads that do not exist here may have waited at the condition, or held its lock.
    _changed, _num_forking = threading.Condition(), 0
    this = threading.get_ident()
    _inside[:] = (thread for thread in _inside if thread == this)
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
