"""Runs all checks side by side, each with a time limit."""

import queue
import threading
import time

from pulse import PulseError
from pulse.clickhouse import ClickHouseError
from pulse.doctor import Check, Finding, fault, machine, readers, warehouse
from pulse.execution.masking import Mask
from pulse.settings import Settings

SECONDS = 20.0
"""How long all checks together may take; what has not answered by then is told as a fault."""

CHECKS = (*machine.CHECKS, *warehouse.CHECKS, *readers.CHECKS)


def examine(config: Settings, seconds: float = SECONDS) -> list[Finding]:
    """Look at everything.

    Args:
        config: the settings of the installation.
        seconds: how long that may take.

    Returns:
        The findings in the order of the checks, without secrets.
    """
    found: list[list[Finding]] = [[] for _ in CHECKS]
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number, check in enumerate(CHECKS):
        # A thread that still waits for an answer must not keep the process from ending.
        threading.Thread(target=_look, args=(check, config, found[number], number, done), daemon=True).start()
    left, deadline = {*range(len(CHECKS))}, time.monotonic() + seconds
    while left and (patience := deadline - time.monotonic()) > 0:
        try:
            left.discard(done.get(timeout=patience))
        except queue.Empty:
            break
    for number in left:
        late = (
            f"no answer within {seconds:.0f} s; check that it is not overloaded, and that the network lets it through"
        )
        found[number] = [*found[number], fault(CHECKS[number].what, late)]
    mask = Mask(config.secrets)
    return [Finding(each.what, each.state, mask.text(each.said)) for findings in found for each in findings]


def _nobody_answered(error: BaseException | None) -> bool:
    """Whether an error, or the one that it was made of, is that no ClickHouse server answers."""
    while error and not isinstance(error, ClickHouseError):
        error = error.__cause__ or error.__context__
    return isinstance(error, ClickHouseError) and error.code is None


def _look(check: Check, config: Settings, found: list[Finding], number: int, done: "queue.SimpleQueue[int]") -> None:
    try:
        for finding in check.look(config):
            found.append(finding)
    except PulseError as error:
        if check.what == warehouse.SERVER or not _nobody_answered(error):  # one line says it for all
            found.append(fault(check.what, str(error)))
    except Exception as error:  # the other findings must not be lost
        found.append(fault(check.what, f"could not be looked at ({type(error).__name__}: {error})"))
    finally:
        done.put(number)
