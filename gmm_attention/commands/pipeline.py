"""Many images through three steps each, so that the coding of one hides behind another's transform.

```
before                       transform           after
(other processes)            (this one)          (other processes)
read the image           ->  analyse         ->  code, write files        encoder
read files, decode y_hat ->  synthesize      ->  write the picture        decoder
```
"""

import collections
import concurrent.futures

from gmm_attention.errors import CodecError

# Of images that are at work at a time, beside one; bounds memory.
PIXELS_AT_WORK = 2**27


def in_steps(items, pixels, before, transform, after, together, workers, ahead):
    """Takes items through three steps.

    Args:
      items: list.
      pixels: function of an item to its size, 0 if it cannot be told; not called without ahead.
      before: function of an item, for another process.
      transform: function of a list of items and the list of what `before` returned for them, for
        this process; it returns a list.
      after: function of an item and what `transform` returned for it, for another process.
      together: function of what `before` returned to how many such are best transformed together,
        and a key that is equal for those that may be.
      workers: Workers.
      ahead: for how many items, at most, `before` is called beforehand, and how many may be left
        to `after`; 0 to finish one after the other.

    Yields:
      item, function that returns what `after` returned, or raises CodecError or MemoryError: in
        order.
    """
    waiting = collections.deque(items)
    begun, ending = collections.deque(), collections.deque()
    sizes = {}  # of the items at work

    def begin(least, most):
        while waiting and len(begun) < most:
            size = pixels(waiting[0]) if ahead else 0
            if len(begun) >= least and sum(sizes.values()) + size > PIXELS_AT_WORK:
                return
            item = waiting.popleft()
            sizes[item] = size
            begun.append((item, workers.submit(before, item)))

    def take(count, key):
        """Yields the next items, with what `before` returned, as long as they go together."""
        while count > 0 and begun and not begun[0][1].exception():
            if together(begun[0][1].result())[1] != key:
                return
            item, future = begun.popleft()
            yield item, future.result()
            count -= 1

    def finish():
        item, future = ending.popleft()
        concurrent.futures.wait([future])
        del sizes[item]
        return item, future.result

    begin(1, 1)
    while begun:
        if begun[0][1].exception():
            ending.append(begun.popleft())
        else:
            count, key = together(begun[0][1].result())
            begin(0, ahead + 1)
            taken = list(take(min(count, ahead + 1), key))
            begin(0, ahead)
            ending.extend(_transformed(taken, transform, after, workers))
        while ending and (
            len(ending) > ahead or ending[0][1].done() or sum(sizes.values()) > PIXELS_AT_WORK
        ):
            yield finish()
        begin(1, 1)
    while ending:
        yield finish()


def _transformed(taken, transform, after, workers):
    """Yields each item, and a Future of what `after` returns for it; empties the list."""
    try:
        results = transform([item for item, _ in taken], [value for _, value in taken])
    except (CodecError, MemoryError) as error:
        if len(taken) > 1:  # one is to blame
            while taken:
                yield from _transformed([taken.pop(0)], transform, after, workers)
            return
        failed = concurrent.futures.Future()
        failed.set_exception(error)
        yield taken[0][0], failed
        return
    items = [item for item, _ in taken]
    taken.clear()  # as large as images, which need not be held while they are coded
    for item in items:
        yield item, workers.submit(after, item, results.pop(0))
