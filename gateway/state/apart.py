"""A thread of its own for work that may never return, such as a question to a database that has stopped answering.

A stuck worker of asyncio's own pool is lost to everybody else, and the end of the program waits for it: a gateway that
asks a silent database there cannot be stopped. It decides nothing, and tries nothing again.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def apart(act: Callable[[], T], *, name: str) -> T:
    """What `act` returns or raises, from a daemon thread of this name; cancelled, it lets the thread be.

    It starts a thread each time: for what happens a few times a second, not for calls.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def succeed(value: T) -> None:
        if not done.done():  # nobody waits any more
            done.set_result(value)

    def fail(error: Exception) -> None:
        if not done.done():
            done.set_exception(error)

    def run() -> None:
        with suppress(RuntimeError):  # from telling a loop that has ended
            try:
                value = act()
            except Exception as error:  # noqa: BLE001  raised where it is awaited
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(succeed, value)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
