"""Leaves out parts of the detector's rule, one at a time, to show what each is worth.

A part is left out by patching a constant or a function of the detector's modules, so the rule itself has no switches.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, TypeAlias
from unittest import mock

import numpy as np

from pulse.monitoring import detector, expectation, references, scores
from pulse.monitoring.expectation import Histories
from pulse.monitoring.grid import Floats

Change: TypeAlias = tuple[ModuleType, str, Any]  # module, name, what to put in its place


def each_alone(surprises: list[float]) -> list[bool]:
    """Judge each series by itself, as `judge` does. Replaces `detector.allowed`."""
    return [surprise <= 1 for surprise in surprises]


def no_noise(histories: Histories, expected_now: Floats) -> Floats:
    """Let the standard deviation be as small as it was in the past. Replaces `scores.counting_noise`."""
    return np.zeros_like(expected_now)


WHOLE = "all parts, series of a tick together"
ALONE = "all parts"

ABLATIONS: dict[str, tuple[Change, ...]] = {
    ALONE: (),
    "… one bucket alone": ((scores, "WINDOWS", (1,)),),
    "… 16 buckets alone": ((scores, "WINDOWS", (16,)),),
    "… references as they are": ((references, "WEEKS", 0), (expectation, "ALTERNATIVES", ())),
    "… no return to last week's level": ((expectation, "ALTERNATIVES", (expectation.as_another_kind_of_day,)),),
    "… holidays as Sundays only": ((expectation, "ALTERNATIVES", (expectation.at_last_weeks_level,)),),
    "… longer windows as they are": ((scores, "SHOWN", -1e30),),
    "… no noise of counting": ((scores, "counting_noise", no_noise),),
    "… small counts as large ones": ((scores, "SMALL", 0.0),),
    "… few days as enough": ((detector, "FEW", 1.0),),
    WHOLE: (),
}
"""What is changed for each line of the table. In all of them but the last, every series is judged for itself."""


@contextmanager
def left_out(name: str) -> Iterator[None]:
    """Judge with one part of the rule left out.

    Args:
        name: a key of `ABLATIONS`.
    """
    together: tuple[Change, ...] = () if name == WHOLE else ((detector, "allowed", each_alone),)
    with ExitStack() as stack:
        stack.callback(_forget)
        for module, constant, value in (*together, *ABLATIONS[name]):
            stack.enter_context(mock.patch.object(module, constant, value))
        _forget()
        yield


def _forget() -> None:
    """Empty the caches whose entries depend on constants."""
    references.reference_days.cache_clear()
    references.positions.cache_clear()
