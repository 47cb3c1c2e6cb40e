"""Ctrl-C, SIGTERM and a closed terminal, at the end of a step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Stop signals wait for the end of a step: no state holds half of one. A second does not wait."""
    asked = threading.Event()

    def ask(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    former = {number: signal.signal(number, ask) for number in _stop_signals() if main}
    try:
        yield asked.is_set
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _stop_signals() -> list[signal.Signals]:
    """Ctrl-C, kill, and a terminal that closes, unless nohup has it ignored."""
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    wanted = [signal.SIGINT, signal.SIGTERM]
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        wanted.append(hangup)
    return wanted
