"""What the doctor looks at where people read: the chats, and the dashboards."""

from collections.abc import Iterator

from pulse import PulseError, clickhouse
from pulse.clickhouse import ClickHouse, ClickHouseError
from pulse.dashboards import redash_api, superset
from pulse.delivery import access, settling, unrecorded
from pulse.doctor import Check, Finding, fault, fine, note, warehouse
from pulse.settings import SANDBOX_TELEGRAM_TOKEN, Settings


def _chats(config: Settings) -> Iterator[Finding]:
    for_what: dict[str, list[str]] = {}
    for use, chats in config.chats.items():
        for chat in access.chat_list(chats):
            for_what.setdefault(chat, []).append(use)
    sandbox = " (the sandbox's)" if config.telegram_bot_token.get_secret_value() == SANDBOX_TELEGRAM_TOKEN else ""
    for chat, used in for_what.items():
        try:
            bot, title = unrecorded.may_write(chat, config)
        except PulseError as error:
            yield fault("chat", f"{error} It is for: {', '.join(used)}")
        else:
            yield fine("chat", f"@{bot}{sandbox} may write to “{title}” ({chat}): {', '.join(used)}")


def _deliveries(config: Settings) -> Iterator[Finding]:
    db = warehouse.connect(config)
    ledger = "select count() from system.tables where database = {name:String} and name = {table:String}"
    if not db.value(ledger, name=config.database, table=db.full_name("deliveries")):
        return  # nothing was ever sent from here
    if waiting := settling.pending(config, db):
        yield fault("deliveries", f"{len(waiting)} need attention; `pulse deliveries` lists them")
    else:
        yield fine("deliveries", "none needs attention")


def _superset(config: Settings) -> Iterator[Finding]:
    if not config.superset_url:
        yield note("Superset", "not set up: SUPERSET_URL is empty")
    elif not superset.is_installed(superset.connect(config)):
        yield fault(
            "Superset", f"{config.superset_url} answers, the dashboard is not there; `pulse dashboards superset`"
        )
    else:
        yield fine("Superset", f"the dashboard is at {config.superset_url}")


def _redash(config: Settings) -> Iterator[Finding]:
    if not config.redash_url:
        yield note("Redash", "not set up: REDASH_URL is empty")
    elif redash_api.find_dashboard(redash_api.connect(config)) is None:
        yield fault("Redash", f"{config.redash_url} answers, the dashboard is not there; `pulse dashboards redash`")
    else:
        yield fine("Redash", f"the dashboard is at {config.redash_url}")


def _account(config: Settings) -> Iterator[Finding]:
    """The account that dashboards read with; from here it may have another address than from there."""
    if not (config.superset_url or config.redash_url):
        return
    url = config.clickhouse_reader_url.get_secret_value()
    reader = ClickHouse(url, config.database, config.zone, clickhouse.PROBE_SECONDS, config.table_prefix)
    try:
        reader.value("select count() from daily_metrics where event_date = today()")
    except ClickHouseError as error:
        if error.code is None:
            yield note("dashboards' account", f"{reader.address} does not answer here; it may where dashboards run")
            return
        raise
    user = reader.value("select currentUser()")
    if reader.value(f"check grant insert on `{config.database}`.*") and reader.value(
        "select value = '0' from system.settings where name = 'readonly'"
    ):
        yield fault("dashboards' account", f"{user} may write; use one that only reads (dashboards/reader.sql)")
    else:
        yield fine("dashboards' account", f"{user} reads the published tables, and only reads")


CHECKS = (
    Check("chat", _chats),
    Check("deliveries", _deliveries),
    Check("Superset", _superset),
    Check("Redash", _redash),
    Check("dashboards' account", _account),
)
