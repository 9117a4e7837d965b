"""The doctor: whether everything that Pulse needs is there and well, one line for each thing, and what to do about it.

examination.py  runs all checks side by side, each with a time limit
warehouse.py    ClickHouse: the connection, rights, clocks, tables, the source, the published days
readers.py      Telegram's chats, the dashboards and the account that they read with
machine.py      this installation: its version, its packages, the archive, free space, Airflow

A check is a generator of findings. It stops at the first error, a `PulseError`, whose sentence becomes a fault.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pulse.settings import Settings

FREE_SHARE = 0.05

State: TypeAlias = Literal["fine", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """What was found about one thing.

    Args:
        what: the thing, in a word or two.
        state: `fine`; `note`, which may be intended; or `fault`, which needs somebody.
        said: what was found, and for a fault what to do.
    """

    what: str
    state: State
    said: str


def fine(what: str, said: str) -> Finding:
    """A finding that needs nothing."""
    return Finding(what, "fine", said)


def note(what: str, said: str) -> Finding:
    """A finding that may be intended."""
    return Finding(what, "note", said)


def fault(what: str, said: str) -> Finding:
    """A finding that needs somebody."""
    return Finding(what, "fault", said)


def is_full(free: float, total: float, least: float) -> bool:
    """Whether too little of a disk is free: less than a twentieth, or than `least` bytes."""
    return free < FREE_SHARE * total or free < least


@dataclass(frozen=True)
class Check:
    """Something to look at.

    Args:
        what: its name, under which its failure is told.
        look: finds things about it.
    """

    what: str
    look: Callable[[Settings], Iterator[Finding]]
