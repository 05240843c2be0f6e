"""Streams made before they are asked for: by a thread of its own, or item by item by several.

What does not belong here: anything that knows what the items are.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def mapped(work: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """``work`` on each item, in the order of the items, up to ``threads`` at once and no more than that ahead.

    An exception is raised in its place. With one thread nothing is done before it is asked for.
    """
    if threads <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[T]] = deque()
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same items in the same order, made by a thread of their own up to ``depth`` before they are asked for.

    Rendering, normalising and the network all leave the interpreter's lock, so that one works while another does. An
    exception of the maker is raised here, in its place; a consumer that stops early stops the maker.
    """
    ready: queue.Queue[tuple[bool, object]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, object]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as fault:
            put((False, fault))

    maker = threading.Thread(target=make, name="render ahead", daemon=True)
    maker.start()
    try:
        while True:
            more, item = ready.get()
            if not more:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        maker.join()
