-- What the project owns in ClickHouse, in its newest version. A run creates what is missing; a change to what is there
-- needs a migration beside it, migrations/NNNN_what_it_does.sql, which `pulse upgrade` applies.

-- One row per version that the tables have had; the highest is theirs.
create table if not exists schema_versions
(
    version UInt32,
    name String comment 'what its migration did',
    applied_at DateTime64(6, 'UTC') default now64(6)
)
engine = MergeTree
order by version;

-- A day is computed as a load: its rows go into the three tables of loads, where nobody reads them yet, and one row here
-- publishes them all. One row per publication, appended and never changed; the highest step of a day is the one that counts,
-- and of two loads that took the same step at once, the one that was extracted later.
create table if not exists publications
(
    event_date Date,
    step UInt32 comment 'counts the publications of the day',
    load String comment 'whose rows are published',
    run String comment 'the run that made them, as the archive names it',
    feed_rows Array(UInt64) comment 'rows of feed_events when it was extracted, for each hour since the day began',
    message_rows Array(UInt64) comment 'the same of message_events',
    feed_hashes Array(UInt64) comment 'hashes of those rows, as the extract adds them up by hour; empty: unknown',
    message_hashes Array(UInt64) comment 'the same of message_events',
    extracted_at DateTime64(6, 'UTC') comment 'when the earlier of the two extracts began; 1970: unknown',
    contents String comment 'what was published, by table, as JSON: columns, rows, and sum(cityHash64(tuple(columns)))',
    published_at DateTime64(6, 'UTC') default now64(6)
)
engine = MergeTree
order by (event_date, step);

-- Which load of a day is published, one row per published day
create or replace view published_loads as
select
    event_date,
    argMax(publications.load, (publications.step, publications.extracted_at, publications.load)) as load
from publications
group by event_date;

-- One row per load and user who acted or received a message that day.
create table if not exists user_activity_loads
(
    load String,
    event_date Date,
    user_id String comment 'as text, whatever the source has: integers of any sign and width, UUIDs and strings stay apart',
    os LowCardinality(String) comment 'of the latest action that day, else of the latest earlier one, else unknown',
    gender LowCardinality(String) comment 'as os',
    age LowCardinality(String) comment 'as os',
    views UInt64,
    likes UInt64,
    messages_received UInt64,
    messages_sent UInt64,
    users_received UInt64 comment 'distinct users who wrote to this user',
    users_sent UInt64 comment 'distinct users this user wrote to',
    feed_active Bool comment 'did anything in the feed'
)
engine = MergeTree
partition by (event_date, load)
order by user_id;

-- One row per load, dimension and value: the activity of a slice.
create table if not exists dimension_activity_loads
(
    load String,
    event_date Date,
    dimension String comment 'os, gender or age',
    dimension_value String comment 'iOS, male, 25 or unknown',
    views UInt64 comment 'feed views by the users of the slice',
    likes UInt64 comment 'feed likes by the users of the slice',
    messages_received UInt64 comment 'messages to the users of the slice',
    messages_sent UInt64 comment 'messages from the users of the slice',
    users_received UInt64 comment 'distinct users from whom the users of the slice received messages',
    users_sent UInt64 comment 'distinct users to whom the users of the slice sent messages'
)
engine = MergeTree
partition by (event_date, load)
order by (dimension, dimension_value);

-- One row per load: the single source of the numbers in reports and dashboards.
create table if not exists daily_metrics_loads
(
    load String,
    event_date Date,
    feed_users UInt64 comment 'DAU of the feed',
    messenger_users UInt64 comment 'DAU of the messenger: users who sent a message',
    app_users UInt64 comment 'DAU of the app: in the feed, in the messenger, or both',
    both_users UInt64 comment 'users active in the feed and in the messenger',
    views UInt64,
    likes UInt64,
    ctr Nullable(Float64) comment 'likes / views; null where there are no views',
    messages_sent UInt64,
    messages_received UInt64 comment 'messages whose recipient was active in the app that day',
    sent_per_received Nullable(Float64) comment 'messages sent / received; null where none was received'
)
engine = MergeTree
partition by (event_date, load)
order by event_date;

-- What is published of the users, one row per user and day. Whoever may read such a view reads the published days and no
-- load beside them: it reads the tables of loads as whoever created it.
create or replace view user_activity definer = current_user sql security definer as
select
    event_date,
    user_id,
    os,
    gender,
    age,
    views,
    likes,
    messages_received,
    messages_sent,
    users_received,
    users_sent,
    feed_active
from user_activity_loads
where (event_date, load) in (select published.event_date, published.load from published_loads as published);

-- What is published of the slices, one row per day, dimension and value
create or replace view dimension_activity definer = current_user sql security definer as
select
    event_date,
    dimension,
    dimension_value,
    views,
    likes,
    messages_received,
    messages_sent,
    users_received,
    users_sent
from dimension_activity_loads
where (event_date, load) in (select published.event_date, published.load from published_loads as published);

-- What is published of the days, one row per day
create or replace view daily_metrics definer = current_user sql security definer as
select
    event_date,
    feed_users,
    messenger_users,
    app_users,
    both_users,
    views,
    likes,
    ctr,
    messages_sent,
    messages_received,
    sent_per_received
from daily_metrics_loads
where (event_date, load) in (select published.event_date, published.load from published_loads as published);

-- What was sent to whom: one row a step of a claim, appended and never changed; pulse/delivery/ledger.py reads it as states.
create table if not exists deliveries
(
    report String,
    event_date Date,
    chat String comment 'as configured: id, or id/thread for a topic',
    claim String comment 'one attempt; the reference that `pulse deliveries` shows',
    step UInt16 comment 'the order of the rows of a claim, and by the row that won it that of the claims',
    state Enum8('bid' = 1, 'withdrawn' = 2, 'claimed' = 3, 'sent' = 4, 'failed' = 5, 'unknown' = 6, 'dismissed' = 7),
    action Enum8('send' = 1, 'edit' = 2),
    recipient String comment 'where it went: the chat, or the one it migrated to',
    content_hash String comment 'of text, headline numbers and photo',
    numbers String comment 'the headline numbers as JSON: by column, as English writes them',
    with_photo Bool,
    message_id Int64 comment '0 where it is not known',
    run String,
    error String,
    lease Float64 comment 'seconds for which a bid or a claim holds',
    recorded_at DateTime64(6, 'UTC') default now64(6)
)
engine = MergeTree
partition by toYear(event_date)
order by (report, event_date, chat, claim, step);

-- One row per quarter of an hour, dimension and value: what the monitoring watches. A row written later takes the place of an
-- earlier one of the same key (read it with FINAL); a bucket in which nothing happened has none.
create table if not exists metric_buckets
(
    bucket DateTime comment 'its first moment; it has 15 minutes',
    dimension LowCardinality(String) comment 'total, os, gender or age_group',
    dimension_value LowCardinality(String) comment 'all, iOS, male, 25–34 or unknown',
    app_users UInt64 comment 'distinct users who did anything in the feed or sent a message',
    feed_users UInt64 comment 'distinct users who did anything in the feed',
    views UInt64,
    likes UInt64,
    messenger_users UInt64 comment 'distinct users who sent a message',
    messages_sent UInt64,
    actions UInt64 comment 'rows of the sources, whatever they are: does the bucket still hold what was counted?',
    refreshed_at DateTime64(6, 'UTC')
)
engine = ReplacingMergeTree(refreshed_at)
partition by toYYYYMM(bucket)
order by (dimension, dimension_value, bucket);

-- What happened in the slices that are large enough to watch, one row per slice: for each metric an array, and the places of its
-- buckets, counted from the start, beside it. Large enough is a share of the active users over the last 168 hours: the server's clock
-- changes in its zone do not make a week longer or shorter.
create or replace view bucket_history as
with largest as (
    select
        dimension,
        dimension_value
    from metric_buckets final
    where bucket >= {end:DateTime64(6)} - interval 168 hour and bucket < {end:DateTime64(6)}
    group by dimension, dimension_value
    having sum(app_users) >= {least_share:Float64} * (
        select sum(whole.app_users)
        from metric_buckets as whole final
        where whole.bucket >= {end:DateTime64(6)} - interval 168 hour and whole.bucket < {end:DateTime64(6)} and whole.dimension = 'total'
    )
)

select
    dimension,
    dimension_value,
    groupArray(intDiv(dateDiff('second', {start:DateTime64(6)}, bucket), 900)) as places,
    groupArray(app_users) as app_users,
    groupArray(feed_users) as feed_users,
    groupArray(views) as views,
    groupArray(likes) as likes,
    groupArray(messenger_users) as messenger_users,
    groupArray(messages_sent) as messages_sent
from metric_buckets final
where bucket >= {start:DateTime64(6)} and bucket < {end:DateTime64(6)} and (dimension, dimension_value) in (largest)
group by dimension, dimension_value;

-- One row per bucket and series (a metric of a slice): what the detector said of it. Judged again, a row replaces the earlier one.
create table if not exists verdicts
(
    bucket DateTime,
    metric LowCardinality(String) comment 'empty: of all metrics, that their data was late when the bucket was first judged',
    dimension LowCardinality(String),
    dimension_value LowCardinality(String),
    kind LowCardinality(String) comment 'normal, drop, spike, data_lag or unknown',
    is_anomaly Bool,
    value Nullable(Float64) comment 'null where it is not known yet',
    expected Nullable(Float64),
    lower Nullable(Float64) comment 'of the expected range',
    upper Nullable(Float64),
    score Float64 comment 'negative below what is expected',
    deviation Nullable(Float64) comment 'over the window, as a share of what was expected',
    window UInt16 comment 'the buckets, this one the last, in which it shows most',
    judged_at DateTime64(6, 'UTC') default now64(6)
)
engine = ReplacingMergeTree(judged_at)
partition by toYYYYMM(bucket)
order by (bucket, metric, dimension, dimension_value);

-- One row per incident, from opening to resolution: what the verdicts say happened. A row written later replaces an earlier one.
create table if not exists incidents
(
    incident String comment 'its reference',
    state Enum8('open' = 1, 'resolved' = 2, 'withdrawn' = 3) comment 'withdrawn: data that came later says that nothing happened',
    direction LowCardinality(String) comment 'drop, spike or data_lag',
    opened DateTime comment 'the first bucket that shows it',
    updated DateTime comment 'the last bucket that shows it',
    resolved Nullable(DateTime) comment 'since when it shows in no bucket',
    metric LowCardinality(String) comment 'of the series that leads: the one that shows it best',
    dimension LowCardinality(String),
    dimension_value LowCardinality(String),
    value Nullable(Float64) comment 'of the leading series in the last bucket that shows it',
    expected Nullable(Float64),
    lower Nullable(Float64),
    upper Nullable(Float64),
    score Float64,
    deviation Nullable(Float64) comment 'over the window, as a share of what was expected',
    window UInt16,
    series Array(String) comment 'all series that showed it: metric, dimension and value',
    showing Array(String) comment 'those that showed it in the last bucket',
    evidence String comment 'the contributions of the slices, as JSON',
    recorded_at DateTime64(6, 'UTC') default now64(6)
)
engine = ReplacingMergeTree(recorded_at)
partition by toYYYYMM(opened)
order by incident;
