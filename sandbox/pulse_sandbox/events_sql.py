"""The SQL of the demo events: the app's tables, and the statements that make a day in them."""

MADE_FOR = """
-- How the app's tables are partitioned, and the type of their times: one row, or none if there are no tables
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

-- The days made, one row each: the recipe, the end (seconds since 1970), and the rows in each table
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
-- The days of a recipe whose rows are as recorded, one row each; days that lost or gained rows are left out
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
-- The tables in which days are made
create or replace table making_feed_actions as feed_actions;
create or replace table making_message_actions as message_actions;

-- Accounts, one row each. Of every 20 numbers, 0 to 6 only read, 7 to 15 read and write, 16 to 18 only write, and 19
-- does neither. The busiest accounts have the lowest numbers; their ids do not reveal that.
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

# The beginning of both statements below.
VISITS = """
with
    hash -> hash / 18446744073709551616. as chance,  -- uniform between 0 and 1
    chance -> (pow(501, chance) - 1) / 500 as mostly_low,  -- between 0 and 1, and below 0.01 in 29 of 100 cases

    -- Visits of the day, one row each. Two neighbours have 16 actions together, so the total is known beforehand.
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
            -- An action after midnight moves to the day's start, as if a visit of the evening before continued.
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
    -- The same with the visitor
    visitors as (
        select
            *,
            toUInt64(place * {population:UInt64} * 16 / 20) as rank,
            {like_rate:Float64} * (0.8 + cityHash64(user_id) % 400 / 1000) * if(os = 'iOS', 1.06, 1) as inclination
        from visits
        inner join making_users as users on users.number = intDiv(rank, 16) * 20 + rank % 16
    ),

    -- Actions up to the moment, one row each. A like belongs to the post seen in the step before.
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
    -- Posts are numbered as they appear, one a day for 40 accounts, and seen for five days, mostly in the first hours.
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
    -- The same with the two sides of the conversation: a writer, and one of the writer's permanent friends or the
    -- writer again. Friends are drawn from all accounts, some of which are never active.
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

    -- Messages up to the moment, one row each. Four of ten are answers, if the partner is one who writes.
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
-- Record a day that was made, one row
insert into sandbox_days (day, recipe, made_until, feed_rows, message_rows)
select {day:Date}, {recipe:String}, {made_until:UInt32}, {feed_rows:UInt64}, {message_rows:UInt64}
"""
