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


def in_steps(items, before, transform, after, together, workers, ahead):
    """Takes items through three steps.

    Args:
      items: list.
      before: function of an item, for another process.
      transform: function of a list of items and the list of what `before` returned for them, for
        this process; it returns a list.
      after: function of an item and what `transform` returned for it, for another process.
      together: function of what `before` returned to how many such are best transformed together,
        and a key that is equal for those that may be.
      workers: Workers.
      ahead: for how many items `before` is called beforehand, and how many may be left to `after`;
        0 to finish one after the other.

    Yields:
      item, function that returns what `after` returned, or raises a CodecError: in order.
    """
    items = iter(items)
    begun, ending = collections.deque(), collections.deque()

    def begin(count):
        while len(begun) < count:
            item = next(items, None)
            if item is None:
                return
            begun.append((item, workers.submit(before, item)))

    def may_join(key):
        if not begun or not begun[0][1].done() or begun[0][1].exception():
            return False
        return together(begun[0][1].result())[1] == key

    begin(max(ahead, 1))
    while begun:
        item, future = begun.popleft()
        begin(ahead)
        try:
            taken = [(item, future.result())]
            count, key = together(taken[0][1])
            while len(taken) < count and may_join(key):
                item, future = begun.popleft()
                taken.append((item, future.result()))
            begin(ahead)
            ending.extend(_transformed(taken, transform, after, workers))
        except CodecError:
            ending.append((item, future))
        while ending and (len(ending) > ahead or ending[0][1].done()):
            item, future = ending.popleft()
            yield item, future.result
        begin(max(ahead, 1))
    for item, future in ending:
        yield item, future.result


def _transformed(taken, transform, after, workers):
    """Yields each item, and a Future of what `after` returns for it."""
    items, values = zip(*taken)
    try:
        results = transform(list(items), list(values))
    except CodecError as error:
        if len(taken) > 1:  # one is to blame
            for one in taken:
                yield from _transformed([one], transform, after, workers)
            return
        failed = concurrent.futures.Future()
        failed.set_exception(error)
        yield items[0], failed
    else:
        for item, result in zip(items, results):
            yield item, workers.submit(after, item, result)
