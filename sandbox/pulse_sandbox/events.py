"""Demo events: what the users of an app would have left in ClickHouse, made there by hashing, with no row in Python.

What is like a real app. Nights are quiet and evenings busy; on weekends people rise later, read more and write less.
The app grows by 3 % a month, and no day is quite like another. A few users do a lot and most do little, and they come
on some days only; some only read, some only write, some do neither. Actions come in visits of some minutes; a like
follows a view of the same post, and new posts are seen most. People write to a few friends, to some of them more, and
the popular are written to most; many receivers are not there that day. Some users have a second phone, which they take
up in the course of the day. Some gave no age or gender, and a few fields hold what no one expects.

How it stays the same. Every property is a hash of the seed and of what it belongs to: a user's of the user, a visit's
of the day and the visit's number, an action's of the visit and its place there. So a day is the same whoever makes it,
alone or in a range, on however many threads; and a part of a day is the whole day up to a moment. It is made in tables
of its own and put in place in one step: per table, readers see the day as it was or as it is, never half of it.
"""

import fcntl
import hashlib
import random
import time
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate
from math import pi, sin
from pathlib import Path
from zoneinfo import ZoneInfo

from pulse.clickhouse import ClickHouse
from pulse_sandbox import SandboxError
from pulse_sandbox.clickhouse import Server, answering

# The day on which the app is as large as asked for, and how it grows from there: by a share of that size each month.
LEVEL_DAY, GROWTH = date(2026, 11, 1), 0.03
STEP = 900  # seconds for which the rhythm stays the same


@dataclass(frozen=True)
class Kind:
    """One half of the app: its share of the events, how they spread over the week and the hours, the slowest pace."""

    name: str
    share: float
    week: tuple[float, ...]  # from Monday; 1 is a usual day
    hours: tuple[int, ...]  # from midnight, on the wall's clock
    pause: int  # the longest time between two actions of a visit, in seconds


FEED = Kind(
    name="feed",
    share=0.8,
    week=(0.98, 0.96, 0.96, 0.97, 1.0, 1.06, 1.07),
    hours=(30, 20, 13, 9, 7, 8, 14, 26, 40, 46, 48, 50, 54, 56, 52, 50, 52, 58, 68, 78, 86, 88, 74, 50),
    pause=30,
)
MESSAGES = Kind(
    name="message",
    share=0.2,
    week=(1.05, 1.06, 1.05, 1.04, 1.02, 0.88, 0.90),
    hours=(26, 16, 10, 7, 5, 6, 12, 28, 44, 54, 60, 64, 68, 66, 64, 64, 66, 70, 76, 82, 84, 78, 62, 42),
    pause=60,
)


@dataclass(frozen=True)
class App:
    """The app whose events are made: equal apps have equal events.

    `events_per_day` is a usual day's size at `LEVEL_DAY`, four feed actions to a message; a single day is off by some
    percent. `users` is the number of accounts then, one to eight events if 0.

    Raises:
        SandboxError: a size is less than 1, or a number is negative.
    """

    zone: ZoneInfo
    database: str = "app"
    seed: int = 1
    events_per_day: int = 300_000
    users: int = 0

    def __post_init__(self) -> None:
        if self.events_per_day < 1 or self.users < 0 or self.seed < 0:
            raise SandboxError(
                "Expected at least one event a day, and a number of users and a seed that are not negative; "
                f"found events_per_day={self.events_per_day}, users={self.users}, seed={self.seed}."
            )

    @property
    def accounts(self) -> int:
        """Number of accounts at `LEVEL_DAY`."""
        return max(20, self.users or self.events_per_day // 8)

    @property
    def recipe(self) -> str:
        """All that a day's events depend on besides the day, this module's text included."""
        text = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
        return f"seed={self.seed} events_per_day={self.events_per_day} users={self.accounts} zone={self.zone} by={text}"

    def growth(self, day: date) -> float:
        """The app's size that day; 1 at `LEVEL_DAY`, and bounded, so that a distant day is still an app."""
        return min(4.0, max(0.2, 1 + GROWTH * (day - LEVEL_DAY).days / 30.4))

    def population(self, day: date) -> int:
        """Number of accounts that day: a multiple of 20, within which every kind of user has its numbers."""
        return max(20, int(self.accounts * self.growth(day)) // 20 * 20)

    def bounds(self, day: date) -> tuple[int, int]:
        """The first second of a local day and of the next, since 1970: 23 to 25 hours apart around clock changes."""
        following = day + timedelta(days=1)
        return self._midnight(day), self._midnight(following)

    def _midnight(self, day: date) -> int:
        return int(datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp())


def fill(server: Server, app: App, *, until: date | None = None, days: int = 35) -> int:
    """Make the events of whole days where they are not there yet.

    Args:
        server: a running sandbox.
        app: whose events.
        until: the first day that is not made; today unless given.
        days: how many, counted back from there.

    Returns:
        Rows added; 0 where every day was there already.

    Raises:
        SandboxError: the server is not the sandbox, `days` is less than 1, or a day is not over.
    """
    today = datetime.now(app.zone).date()
    until = until or today
    if days < 1 or until > today:
        raise SandboxError(f"Expected one or more days that end by {today}, found {days} that end by {until}.")
    wanted = [until - timedelta(days=back) for back in range(days, 0, -1)]
    return _make(server, app, {day: app.bounds(day)[1] for day in wanted})


def make_until(server: Server, app: App, now: datetime) -> int:
    """Make today's events up to a moment, and yesterday's if they are not complete: what the live app has by then.

    A later call adds what has happened since; after the day's end it is exactly what `fill` makes.

    Returns:
        Rows added.

    Raises:
        SandboxError: the server is not the sandbox, or the moment has no time zone or has not come.
    """
    if now.tzinfo is None or now.timestamp() > time.time():
        raise SandboxError(f"Expected a moment with a time zone that is not in the future, found {now}.")
    today = now.astimezone(app.zone).date()
    return _make(server, app, {today - timedelta(days=1): app.bounds(today)[0], today: int(now.timestamp())})


def _make(server: Server, app: App, wanted: dict[date, int]) -> int:
    """Make each day up to a second, unless it is there that far; gives by how many rows there are more than before."""
    if answering(server.port) != server:
        raise SandboxError(
            f"Port {server.port} is not the sandbox on {server.data}; demo events are written only there."
        )
    db = ClickHouse(server.url, app.database, app.zone)
    with (server.data / "events.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever makes days makes them in the same tables
        _create_tables(db, server, app)
        there = {row.day.date(): row for row in db.read(DAYS_THERE, recipe=app.recipe).itertuples()}
        missing = {day: end for day, end in wanted.items() if day not in there or there[day].made_until < end}
        if not missing:
            return 0
        db.script(MAKING, seed=app.seed, accounts=app.accounts, population=max(map(app.population, missing)))
        with ThreadPoolExecutor(2) as pool:  # a day alone does not keep two cores busy
            rows = sum(pool.map(lambda day: _make_day(db, app, day, missing[day]), missing))
        db.script(MADE)
    return rows - sum(there[day].rows for day in missing if day in there)


def _create_tables(db: ClickHouse, server: Server, app: App) -> None:
    """Create the database and its tables where they are missing."""
    first = ClickHouse(server.url, "default", app.zone)
    first.execute("create database if not exists {database:Identifier}", database=app.database)
    found = db.read(MADE_FOR)
    if not found.empty and found.loc[0].tolist() != [f"toDate(time, '{app.zone}')", "DateTime64(3)"]:
        db.script(DROP)  # made for another time zone, or before times had milliseconds: nothing of it can be kept
    db.script(TABLES, zone=app.zone.key)


def _make_day(db: ClickHouse, app: App, day: date, end: int) -> int:
    """Make one day up to a second, in the place of what was there; gives its rows."""
    start, following = app.bounds(day)
    dice = random.Random(f"{app.seed} {day}")  # noqa: S311 (nothing here is secret)
    rows = []
    for kind, statement in ((FEED, FEED_ACTIONS), (MESSAGES, MESSAGE_ACTIONS)):
        noise = 1 + 0.06 * (dice.random() + dice.random() + dice.random() - 1.5)
        actions = app.events_per_day * kind.share * kind.week[day.weekday()] * app.growth(day) * noise
        made = db.execute(
            statement,
            kind=kind.name,
            seed=app.seed,
            day=day,
            day_number=(day - date(2020, 1, 1)).days,
            start=start,
            seconds=following - start,
            made_until=end,
            visits=2 * max(1, round(actions / 16)),
            moments=_moments(app, day, kind, dice),
            pause=kind.pause,
            like_rate=dice.uniform(0.24, 0.26),
            accounts=app.accounts,
            population=app.population(day),
        )
        rows.append(made.written_rows)
    for table, count in zip(("feed_actions", "message_actions"), rows, strict=True):
        if count:
            db.replace_partition(table, [day], f"making_{table}")
        else:  # ClickHouse refuses to replace a partition by an empty one
            db.execute(DROP_DAY, table=table, day=day)
    db.execute(RECORD, day=day, recipe=app.recipe, made_until=end, feed_rows=rows[0], message_rows=rows[1])
    return sum(rows)


def _moments(app: App, day: date, kind: Kind, dice: random.Random) -> list[int]:
    """Seconds since the day's start that cut it into 1,000 parts in which equally many visits begin.

    The rhythm follows the clock on the wall, so that a day of 23 hours misses what happens in the hour left out.
    """
    start, following = app.bounds(day)
    weights = []
    for second in range(start, following, STEP):
        local = datetime.fromtimestamp(second, app.zone)
        clock = local.hour + local.minute / 60
        if day.weekday() >= 5:
            clock -= 1.5 * sin(pi * clock / 24)  # people get up later; midnight stays where the days meet
        hour, between = divmod(clock, 1)
        level = kind.hours[int(hour)] * (1 - between) + kind.hours[(int(hour) + 1) % 24] * between
        weights.append(level * dice.uniform(0.94, 1.06))
    reached = [0.0, *accumulate(weights)]
    moments = []
    for part in range(1000):
        target = reached[-1] * part / 1000
        step = bisect_right(reached, target) - 1
        moments.append(int(STEP * (step + (target - reached[step]) / weights[step])))
    return [*moments, following - start]


# --- SQL -------------------------------------------------------------------------------------------------------------

MADE_FOR = """
-- By what the app's tables are partitioned, and the type of their times, one row; none where there are no tables
select
    tables.partition_key as partitions,
    columns.type as times
from system.tables as tables
inner join system.columns as columns on columns.database = tables.database and columns.table = tables.name
where tables.database = currentDatabase() and tables.name = 'feed_actions' and columns.name = 'time'
"""

TABLES = """
-- Actions in the feed, one row per view or like
create table if not exists feed_actions
(
    user_id UInt32,
    post_id UInt32,
    action LowCardinality(String),
    time DateTime64(3),
    os LowCardinality(String),
    gender LowCardinality(Nullable(String)),
    age Nullable(UInt8),
    country LowCardinality(String),
    city String,
    source LowCardinality(String),
    exp_group UInt8
)
engine = MergeTree
partition by toDate(time, {zone:String})
order by (time, user_id);

-- Messages, one row each; the attributes are the sender's
create table if not exists message_actions
(
    user_id UInt32,
    receiver_id UInt32,
    time DateTime64(3),
    os LowCardinality(String),
    gender LowCardinality(Nullable(String)),
    age Nullable(UInt8),
    country LowCardinality(String),
    city String,
    source LowCardinality(String),
    exp_group UInt8
)
engine = MergeTree
partition by toDate(time, {zone:String})
order by (time, user_id);

-- The days made, one row each: from what, up to when (seconds since 1970), and how many rows each table got
create table if not exists sandbox_days
(
    day Date,
    recipe String,
    made_until UInt32,
    feed_rows UInt64,
    message_rows UInt64
)
engine = ReplacingMergeTree
order by day;
"""

DROP = """
drop table if exists feed_actions;
drop table if exists message_actions;
drop table if exists sandbox_days;
"""

DAYS_THERE = """
-- The days of a recipe whose rows are there as recorded, one row each; a day that lost or gained rows is not among them
with present as (
    select
        toDate(partition) as day,
        sumIf(rows, table = 'feed_actions') as feed_rows,
        sumIf(rows, table = 'message_actions') as message_rows
    from system.parts
    where database = currentDatabase() and table in ('feed_actions', 'message_actions') and active
    group by day
)
select
    day,
    made_until,
    feed_rows + message_rows as rows
from sandbox_days final
inner join present using (day, feed_rows, message_rows)
where recipe = {recipe:String}
"""

MAKING = r"""
-- Where days are made
create or replace table making_feed_actions as feed_actions;
create or replace table making_message_actions as message_actions;

-- Accounts, one row each. Of every 20 by number, 0 to 6 only read, 7 to 15 read and write, 16 to 18 only write, and 19
-- does neither. The busiest have the lowest numbers, which their ids do not show.
create or replace table making_users
engine = MergeTree
order by number
as with
    cityHash64({seed:UInt64}, 'user', number) as dice,
    (what, sides) -> cityHash64(dice, what) % sides as roll,
    [
        ('Russia', 'Moscow'), ('Russia', 'Moscow'), ('Russia', 'Saint Petersburg'), ('Russia', 'Казань'),
        ('Kazakhstan', 'Almaty'), ('Türkiye', 'İstanbul'), ('Germany', 'Köln'), ('Brazil', 'São Paulo')
    ] as homes,
    homes[1 + roll('home', 8)] as home,
    ['ads', 'organic', 'organic', 'invitation'] as sources,
    [
        'Tom''s "best"', 'tab\there', 'back\\slash', 'new\nline', '{brace}', '🐈🐈', '<b>bold</b> & co', '',
        repeat('long ', 50)
    ] as oddities,
    oddities[1 + roll('oddity', 9)] as oddity
select
    number,
    toUInt32(1 + number * 2654435761 % (4 * {accounts:UInt64})) as user_id,  -- a prime: no two get the same
    multiIf(roll('os', 1000) < 4, oddity, roll('os', 1000) < 420, 'iOS', 'Android')::LowCardinality(String) as os,
    if(roll('phones', 100) < 4, if(os = 'iOS', 'Android', 'iOS'), os)::LowCardinality(String) as second_os,
    multiIf(
        roll('gender', 1000) < 15, null,
        roll('gender', 1000) < 25, '',
        roll('gender', 1000) < 520, 'female',
        'male'
    )::LowCardinality(Nullable(String)) as gender,
    multiIf(
        roll('age', 1000) < 15, null,
        roll('age', 1000) < 25, 0,
        14 + roll('youth', 12) + roll('adult', 12) + if(roll('elder', 3) = 0, roll('years', 40), 0)
    )::Nullable(UInt8) as age,
    home.1::LowCardinality(String) as country,
    if(roll('city', 1000) < 4, oddity, home.2) as city,
    if(roll('source', 1000) < 4, oddity, sources[1 + roll('channel', 4)])::LowCardinality(String) as source,
    toUInt8(roll('experiment', 5)) as exp_group
from numbers_mt({population:UInt64});
"""

MADE = """
drop table if exists making_feed_actions;
drop table if exists making_message_actions;
drop table if exists making_users;
"""

# What both of the following statements begin with.
VISITS = """
with
    hash -> hash / 18446744073709551616. as chance,  -- evenly from 0 to 1
    chance -> (pow(501, chance) - 1) / 500 as mostly_low,  -- from 0 to 1, and in 29 of 100 cases below 0.01

    -- Visits of the day, one row each. Two neighbours hold 16 actions together: so their sum is known beforehand.
    visits as (
        select
            cityHash64({seed:UInt64}, {day:Date}, {kind:String}, number) as dice,
            1 + cityHash64({seed:UInt64}, {day:Date}, {kind:String}, 'pair', intDiv(number, 2)) % 15 as part,
            if(number % 2 = 0, part, 16 - part) as length,
            mostly_low(chance(cityHash64(dice, 'who'))) as place,
            cityHash64(dice, 'when') as moment,
            {moments:Array(UInt32)}[1 + moment % 1000] as earliest,
            {moments:Array(UInt32)}[2 + moment % 1000] as latest,
            earliest + intDiv(moment, 1000) % (latest - earliest) as begins,
            4 + cityHash64(dice, 'pace') % ({pause:UInt8} - 3) as pace,
            range(length) as steps,
            -- What would run past midnight happens at the day's start, as if a visit of the evening before went on.
            arrayMap(
                step -> toUInt32(
                    {start:UInt32}
                    + (begins + step * pace + cityHash64(dice, step, 'wait') % pace) % {seconds:UInt32}
                ),
                steps
            ) as seconds
        from numbers_mt({visits:UInt64})
    ),
"""

FEED_ACTIONS = (
    """
-- Feed actions of one day up to a moment, one row per view or like
insert into making_feed_actions
    (user_id, post_id, action, time, os, gender, age, country, city, source, exp_group)
"""
    + VISITS
    + """
    -- The same with who visits
    visitors as (
        select
            *,
            toUInt64(place * {population:UInt64} * 16 / 20) as rank,
            {like_rate:Float64} * (0.8 + cityHash64(user_id) % 400 / 1000) * if(os = 'iOS', 1.06, 1) as inclination
        from visits
        inner join making_users as users on users.number = intDiv(rank, 16) * 20 + rank % 16
    ),

    -- Actions up to the moment, one row each. A like is of the post seen in the step before.
    actions as (
        select
            *,
            step,
            second,
            step > 0
                and chance(cityHash64(dice, step, 'like')) < inclination
                and chance(cityHash64(dice, step - 1, 'like')) >= inclination as liked
        from visitors
        array join steps as step, seconds as second
        where second < {made_until:UInt32}
    )
select
    user_id,
    -- Posts are numbered as they appear, one a day to 40 accounts, and seen for five days, mostly in their first hours.
    toUInt32(
        ({day_number:UInt32} + begins / {seconds:UInt32} - 5 * pow(chance(cityHash64(dice, step - liked, 'post')), 3))
        * {accounts:UInt64} / 40
    ) as post_id,
    if(liked, 'like', 'view') as action,
    fromUnixTimestamp64Milli(1000 * second + cityHash64(dice, step, 'fraction') % 1000) as time,
    if(second < {start:UInt32} + cityHash64({day:Date}, user_id) % {seconds:UInt32}, os, second_os) as os,
    gender,
    age,
    country,
    city,
    source,
    exp_group
from actions
"""
)

MESSAGE_ACTIONS = (
    """
-- Messages of one day up to a moment, one row each
insert into making_message_actions
    (user_id, receiver_id, time, os, gender, age, country, city, source, exp_group)
"""
    + VISITS
    + """
    -- The same with whose conversation it is: a writer's with one of the friends that are theirs for good, or with
    -- themselves. Friends are drawn from all accounts, some of which are never there.
    conversations as (
        select
            *,
            toUInt64(place * {population:UInt64} * 12 / 20) as rank,
            intDiv(rank, 12) * 20 + 7 + rank % 12 as writer,
            1 + cityHash64({seed:UInt64}, writer, 'friends') % 15 as friends,
            toUInt64(friends * pow(chance(cityHash64(dice, 'friend')), 2)) as friend,
            if(
                cityHash64(dice, 'self') % 300 = 0,
                writer,
                toUInt64(mostly_low(chance(cityHash64({seed:UInt64}, writer, friend))) * {accounts:UInt64})
            ) as partner
        from visits
    ),

    -- Messages up to the moment, one row each. Four of ten are answers, where the partner is one who writes.
    messages as (
        select
            *,
            step,
            second,
            step > 0
                and cityHash64(dice, step, 'answer') % 100 < 40
                and partner % 20 between 7 and 18
                and partner < {population:UInt64} as answered,
            if(answered, partner, writer) as sender,
            if(answered, writer, partner) as receiver
        from conversations
        array join steps as step, seconds as second
        where second < {made_until:UInt32}
    )
select
    user_id,
    toUInt32(1 + receiver * 2654435761 % (4 * {accounts:UInt64})) as receiver_id,
    fromUnixTimestamp64Milli(1000 * second + cityHash64(dice, step, 'fraction') % 1000) as time,
    if(second < {start:UInt32} + cityHash64({day:Date}, user_id) % {seconds:UInt32}, os, second_os) as os,
    gender,
    age,
    country,
    city,
    source,
    exp_group
from messages
inner join making_users as users on users.number = messages.sender
"""
)

DROP_DAY = """
-- Empty a day of a table
alter table {table:Identifier} drop partition {day:String}
"""

RECORD = """
-- Note a day that is made, one row
insert into sandbox_days (day, recipe, made_until, feed_rows, message_rows)
select {day:Date}, {recipe:String}, {made_until:UInt32}, {feed_rows:UInt64}, {message_rows:UInt64}
"""
