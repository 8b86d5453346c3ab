"""Ctrl-C in a worker that searches: it comes from the terminal, and SIGTERM from the parent."""

import os
import signal
import threading

import pytest

from gmm_attention.commands import searching


class Ended(Exception):
    """What SIGTERM raises in this worker."""


@pytest.fixture
def worker(monkeypatch):
    """Has this process behave as a worker with a call."""

    def end(*_):
        raise Ended

    monkeypatch.setattr("multiprocessing.parent_process", object)
    monkeypatch.setattr(searching, "_interrupted", False)
    before = [
        (number, signal.signal(number, handler))
        for number, handler in ((signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, end))
    ]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    yield
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before:
        signal.signal(number, handler)


def send(*names):
    for name in names:
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))


def test_a_worker_ends_its_search_after_an_interrupt_and_begins_no_other(worker):
    done = []
    with pytest.raises(Ended):
        with searching.watched() as watch:
            send("INT")
            assert not watch.interrupted  # before its parent says so
            send("TERM", "TERM", "TERM")
            assert watch.interrupted
            done.append("first image")
    with pytest.raises(Ended):
        with searching.watched():
            done.append("second image")
    assert done == ["first image"]


@pytest.mark.parametrize(
    "names", [("TERM",), ("INT", "TERM", "INT", "TERM"), ("INT", "INT", "TERM")]
)
def test_a_worker_ends_at_once_after_two_interrupts_or_none(worker, names):
    with pytest.raises(Ended):
        with searching.watched():
            send(*names)
            pytest.fail("it went on")


def test_an_interrupt_before_its_image_does_not_count(worker):
    send("INT")
    with pytest.raises(Ended):
        with searching.watched():
            send("TERM")
            pytest.fail("it went on")


def test_a_worker_goes_on_unless_its_parent_ends_it(worker):
    with searching.watched() as watch:
        send("INT")
    assert not watch.interrupted
    with searching.watched() as watch:
        pass
    assert not watch.interrupted


def test_a_thread_that_gets_no_signals_searches_as_well():
    watches = []

    def search():
        with searching.watched() as watch:
            watches.append(watch)

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert not watches[0].interrupted
