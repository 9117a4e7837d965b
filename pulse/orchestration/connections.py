"""The settings of a task: those of the environment, and Airflow's connections before them."""

from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from pulse import settings


def connected_settings() -> settings.Settings:
    """The settings, overridden by Airflow's connections.

    Raises:
        SettingsError: a setting or a connection is wrong.
    """
    overrides: dict[str, str] = {}
    if found := _connection("clickhouse_default"):
        secure = found.schema == "https" or found.extra_dejson.get("secure") or found.port in (443, 8443)
        scheme, port = ("https", found.port or 8443) if secure else ("http", found.port or 8123)
        user = f"{quote(found.login or 'default', safe='')}:{quote(found.password or '', safe='')}"
        overrides["CLICKHOUSE_URL"] = f"{scheme}://{user}@{found.host}:{port}"
    if found := _connection("telegram_default"):
        overrides["TELEGRAM_BOT_TOKEN"] = found.password or ""
        if found.host:
            port = f":{found.port}" if found.port else ""
            overrides["TELEGRAM_API_URL"] = f"{found.schema or 'https'}://{found.host}{port}"
    return settings.load(**overrides)


def _connection(name: str) -> Any:
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
