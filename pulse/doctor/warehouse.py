"""What the doctor looks at in ClickHouse."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pulse import clickhouse, schema, sources
from pulse.clickhouse import UNKNOWN_DATABASE, ClickHouse, ClickHouseError, quoted
from pulse.doctor import Check, Finding, fault, fine, is_full, note
from pulse.publishing import loads
from pulse.settings import Settings
from pulse.sources import administration, measures, views
from pulse.sources.check import fitting_zone
from pulse.sources.views import View

APART = 60.0
"""How many seconds the server's clock may differ from this machine's, in seconds."""

FREE_BYTES = 5e9
"""How many bytes a disk of the server should have free."""

SILENT = timedelta(hours=26)
"""How old the latest event may be: a loader may run once a day."""

DAYS = 7
"""How many days back each should be published."""


SERVER = "ClickHouse"


def _server(config: Settings) -> Iterator[Finding]:
    db = connect(config)
    asked = datetime.now(UTC)
    about = """
    -- Who answers, and what time it is there, one row
    select
        version() as version,
        currentUser() as user,
        timezone() as zone,
        toUnixTimestamp64Milli(now64(3)) as now
    """
    (row,) = db.rows(about)
    took = (datetime.now(UTC) - asked).total_seconds()
    yield fine(SERVER, f"version {row['version']} answers {row['user']} in {1000 * took:.0f} ms")
    apart = int(row["now"]) / 1000 - asked.timestamp()
    if abs(apart) > APART + took:
        yield fault(
            "clock",
            f"ClickHouse's clock is {abs(apart):,.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's; "
            "let both follow a time server",
        )
    else:
        yield fine("clock", f"ClickHouse's and this machine's are {abs(apart):.1f} s apart")
    clocks = f", the source's clock times are of {config.source_timezone}" if config.source_timezone else ""
    yield fine("time zone", f"days are of {config.timezone}, the server's zone is {row['zone']}{clocks}")
    yield from _disks(db)


def _disks(db: ClickHouse) -> Iterator[Finding]:
    disks = """
    -- The server's disks, one row each
    select name, free_space, total_space
    from system.disks
    where total_space > 0 and free_space < 1e18
    order by name
    """
    for disk in db.rows(disks):
        free, total = int(disk["free_space"]), int(disk["total_space"])
        said = f"{free / 1e9:,.0f} GB of {total / 1e9:,.0f} GB are free on {disk['name']}"
        if is_full(free, total, FREE_BYTES):
            yield fault("ClickHouse's disk", f"{said}; give it more, or drop what is not needed")
        else:
            yield fine("ClickHouse's disk", said)


def _tables(config: Settings) -> Iterator[Finding]:
    db, name = connect(config), config.database
    if db.database != name:
        if db.value(f"check grant create database on {quoted(name)}.*"):
            yield note("tables", f"there is no database {name} yet; the first run creates it")
        else:
            yield fault("rights", f"there is no database {name}, and the account may not create one; create it")
        return
    lacking = [
        right for right in administration.RIGHTS if not db.value(f"check grant {right} on {administration.tables(db)}")
    ]
    if lacking:
        yield fault("rights", f"the account lacks {', '.join(lacking)} on {name}; grant them to it")
    else:
        yield fine("rights", f"the account may do what the notebooks do in {name}")
    version, newest, source = schema.version(db), schema.newest(), sources.chosen(config)
    steps = [step for step in schema.upgrade(db, source, dry_run=True) if not step.startswith(" ")]
    if version is None:
        yield note("tables", f"there are none in {name} yet; the first run creates them")
    elif steps:
        yield fault("tables", f"version {version} of {newest}; `pulse upgrade` will do: {'; '.join(steps)}")
    else:
        yield fine("tables", f"version {version}, the newest; the views read {source}")
    if version == newest:
        yield from _published(db, config)


def _published(db: ClickHouse, config: Settings) -> Iterator[Finding]:
    first = db.value("select toString(min(event_date)) from published_loads having count() > 0")
    yesterday = config.event_day("yesterday")
    if not first:
        yield note("published days", "none yet; `pulse daily` publishes yesterday")
        return
    start = max(datetime.fromisoformat(first).date(), yesterday - timedelta(days=DAYS - 1))
    unpublished = loads.unpublished(db, start, yesterday + timedelta(days=1))
    missing = [day for day in unpublished if day != yesterday]
    if missing:
        listed = ", ".join(map(str, missing))
        yield fault(
            "published days", f"{listed} {'are' if len(missing) > 1 else 'is'} not published; `pulse daily DATE`"
        )
    elif unpublished:
        yield note("published days", f"{yesterday} is not published yet; the days before it are")
    else:
        yield fine("published days", f"every day from {start} to {yesterday}")


def _source(config: Settings) -> Iterator[Finding]:
    db = connect(config)
    source = sources.chosen(config)
    read = views.read(db, source)
    types = {row["name"]: row["type"] for row in db.rows(f"describe table {_rows_of(read[0])}")}
    how = f"users are {types['user_id']}, published as text; times are {types['time']}"
    yield fine("source", f"{source}{'' if read[0].select else ' through its views'}: {how}")
    for view in read:
        yield from _freshness(db, config, view)


def _freshness(db: ClickHouse, config: Settings, view: View) -> Iterator[Finding]:
    """How the latest event relates to now."""
    recent = f"""
    -- The latest event of two days, one row
    select toUnixTimestamp(max(events.time)) as latest, count() as events, toUnixTimestamp(now()) as now
    from {_rows_of(view)} as events
    where events.time >= now() - interval 2 day and events.time < now() + interval 1 day
    """  # noqa: S608 (the source's own SELECT)
    (row,) = db.rows(recent)
    now, latest = (datetime.fromtimestamp(int(row[name] or 0), UTC) for name in ("now", "latest"))
    shown = f"{latest.astimezone(config.zone):%F %H:%M}"
    if not int(row["events"]):
        yield fault(view.name, "no event in the last two days; ask the owner of the app's loader")
    elif latest > now + measures.CLOCKS:
        read_as = ZoneInfo(config.source_timezone or db.value("select timezone()"))
        zone = fitting_zone(read_as, latest - now, config.zone, now)
        ahead = f"the latest event is {(latest - now) / timedelta(hours=1):.1f} h in the future"
        yield fault(
            view.name,
            f"{ahead}: if the app writes its clocks' time into a column without a zone, set PULSE_SOURCE_TIMEZONE, "
            f"with {zone} it would fit; `pulse source check` shows more",
        )
    elif now - latest > SILENT:
        yield fault(view.name, f"the latest event is of {shown}; ask the owner of the app's loader")
    else:
        yield fine(view.name, f"{int(row['events']):,} events in two days, the latest at {shown}")


def _rows_of(view: View) -> str:
    """What to read a view's rows from: the source, or the view if this account may not read the source."""
    return f"({view.select})" if view.select else view.name


def connect(config: Settings) -> ClickHouse:
    """The server, in the project's database or, before that is there, in one that every server has.

    Raises:
        ClickHouseError: no server answers, or it refuses the account.
    """
    db = clickhouse.connect(config, clickhouse.PROBE_SECONDS)
    try:
        db.value("select 1")
    except ClickHouseError as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        return ClickHouse(db.url, "system", config.zone, clickhouse.PROBE_SECONDS, db.prefix)
    return db


CHECKS = (Check(SERVER, _server), Check("tables", _tables), Check("source", _source))
