"""What every task shares: our errors as Airflow's, and what a task leaves for the last task of its DAG."""

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from pulse import PulseError
from pulse.delivery.message import DeliveryError, TelegramError
from pulse.execution.errors import ParameterError
from pulse.settings import SettingsError

log = logging.getLogger(__name__)

REASON, NOTEBOOK = "failure", "notebook"
"""The XComs that a task leaves for the DAG's last task: why it failed, and where its executed notebook is."""


@contextmanager
def for_airflow(context: Any) -> Iterator[None]:
    """Turn our errors into Airflow's: one sentence, and no second try where that would not help.

    The reason is left where the DAG's last task finds it, which tells it (`pulse.orchestration.failures`).
    """
    try:
        _check_conf(context)
        yield
    except PulseError as error:
        leave(context, REASON, str(error))
        raise (AirflowFailException if is_for_good(error) else AirflowException)(str(error)) from None
    except AirflowSkipException:
        raise
    except BaseException as error:
        leave(context, REASON, str(error) or type(error).__name__)
        raise


def is_for_good(error: PulseError) -> bool:
    """Whether another try would fail in the same way."""
    if isinstance(error, DeliveryError):
        return False
    return isinstance(error, (ParameterError, SettingsError, TelegramError))


def leave(context: Any, key: str, what: str) -> None:
    """Leave something for the DAG's last task. If that fails, the task goes on as if it had not."""
    try:
        context["ti"].xcom_push(key, what)
    except Exception as error:
        log.warning("The last task will not know the %s: %s", key, error)


def _check_conf(context: Any) -> None:
    """Refuse a run that was triggered with a key that is not one of the DAG's parameters.

    Raises:
        ParameterError: there is such a key. The text lists the parameters.
    """
    if "dag" not in context:  # a task executed by hand
        return
    known = list(context["dag"].params)
    for name in context["dag_run"].conf or {}:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean '{near[0]}'" if near else f"it has {', '.join(known) or 'none'}"
            raise ParameterError(f"{context['dag'].dag_id} has no parameter '{name}': {meant}?")
