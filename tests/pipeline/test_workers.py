"""Worker processes: signals, interrupts and deaths."""

import multiprocessing
import signal
import time

import calls
import pytest
from conftest import files, wait_until

from gmm_attention.errors import CodecError
from gmm_attention.pipeline.workers import Workers, report_lost_processes


def children():
    return multiprocessing.active_children()


def test_sigterm_ends_a_call_and_not_the_process(tmp_path):
    with Workers(1) as workers:
        held = tmp_path / "held"
        future = workers.submit(calls.hold, held)
        wait_until(held.exists)
        (child,) = children()
        child.terminate()
        with pytest.raises(CodecError, match="held: ended by a signal"):
            future.result()
        assert not held.exists()
        assert workers.submit(calls.length, b"abc").result() == 3
        child.terminate()  # between calls, nothing
        assert workers.submit(calls.length, b"abc").result() == 3
        with pytest.raises(MemoryError):
            workers.submit(calls.out_of_memory, "a.png").result()
    assert not children()


def test_sigterm_lets_an_import_finish(tmp_path):
    """An exception within it may print a traceback, and the module would be there by half."""
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "def wait():\n"
        "    open(f'{__file__}.begun', 'w').close()\n"
        "    for _ in range(5):\n"
        "        time.sleep(0.1)\n"
        "wait()\n"
        "open(f'{__file__}.finished', 'w').close()\n"
    )
    with Workers(1) as workers:
        future = workers.submit(calls.import_from, tmp_path)
        wait_until((tmp_path / "slow.py.begun").exists)
        children()[0].terminate()
        with pytest.raises(CodecError, match="ended by a signal"):
            future.result(timeout=30)
    assert (tmp_path / "slow.py.finished").exists() and not (tmp_path / "held").exists()


def test_giving_up_ends_what_is_at_work_and_what_waits(tmp_path):
    begin, before = time.monotonic(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with Workers(1) as workers:
            held = tmp_path / "held"
            workers.submit(calls.hold, held)
            waiting = [workers.submit(calls.hold, tmp_path / f"{i}") for i in range(3)]
            wait_until(held.exists)
            raise KeyboardInterrupt
    assert time.monotonic() - begin < 30
    assert not children() and files(tmp_path) == []
    assert all(future.done() for future in waiting)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_process_that_dies_with_much_to_read_is_told(tmp_path):
    with pytest.raises(CodecError, match="a worker died"):
        with Workers(1) as workers, report_lost_processes("again"):
            future = workers.submit(calls.hold, tmp_path / "held")
            wait_until((tmp_path / "held").exists)
            for _ in range(3):
                workers.submit(calls.length, bytes(10**7))
            children()[0].kill()
            future.result()
    assert not children()
