-- The newest version of the project's own tables in ClickHouse. A run creates those that are missing. A change to existing
-- tables also needs a migration, migrations/NNNN_what_it_does.sql, which `pulse upgrade` applies.

-- One row per version that the tables have had; the highest is the current one.
create table if not exists schema_versions
(
    version UInt32,
    name String comment 'what its migration did',
    applied_at DateTime64(6, 'UTC') default now64(6)
)
engine = MergeTree
order by version;

-- One row per publication of a day, appended and never changed. A day is computed as a load: its rows go into the four
-- tables of loads, where nobody reads them yet, and then one row here publishes all of them. The row with the highest step is
-- valid; if two loads took the same step at once, the one that was extracted later.
create table if not exists publications
(
    event_date Date,
    step UInt32 comment 'the number of this publication among those of the day, from 1',
    load String comment 'the load whose rows are published',
    run String comment 'the run that computed the load, as the archive names it',
    feed_rows Array(UInt64) comment 'the number of rows of feed_events at extraction, for each hour since the start of the day',
    message_rows Array(UInt64) comment 'the same for message_events',
    feed_hashes Array(UInt64) comment 'the sum of the hashes of those rows, for each hour since the start of the day; empty if unknown',
    message_hashes Array(UInt64) comment 'the same for message_events',
    feed_second_hashes Array(UInt64) comment 'the same sums of an independent hash of the rows of feed_events; empty if unknown',
    message_second_hashes Array(UInt64) comment 'the same for message_events',
    extracted_at DateTime64(6, 'UTC') comment 'when the earlier of the two extracts began; 1970 if unknown',
    contents String comment 'what was published, by table, as JSON: columns, rows, and sum(cityHash64(tuple(columns)))',
    published_at DateTime64(6, 'UTC') default now64(6)
)
engine = MergeTree
order by (event_date, step);

-- One row per day and source: what the source held of the day, from which later days are told apart that are far from it
-- (pulse/publishing/plausible.py). A later row replaces an earlier one (read with FINAL).
create table if not exists day_profiles
(
    source String comment 'how the source is read: its database, its shape, and where its days begin',
    event_date Date,
    feed_rows Array(UInt64) comment 'the number of rows of feed_events, for each hour of the day',
    message_rows Array(UInt64) comment 'the same for message_events',
    metrics Array(Tuple(String, Float64)) comment 'the columns of daily_metrics, without those that could not be computed',
    odd_users Array(Tuple(String, UInt64)) comment 'by feed_actions and message_actions, the users with an odd number of rows',
    slices Array(Tuple(String, String, String, UInt64)) comment 'source, dimension, value, users: at most 200 of a dimension',
    profiled_at DateTime64(6, 'UTC') default now64(6)
)
engine = ReplacingMergeTree(profiled_at)
order by (source, event_date);

-- The days that were held because they are far from the same weekdays before: one row per step, appended and never
-- changed. A day is held if the row with its highest step says so.
create table if not exists day_holds
(
    event_date Date,
    step UInt32 comment 'the number of this row among those of the day, from 1',
    state Enum8('held' = 1, 'released' = 2, 'lifted' = 3) comment 'lifted: computed again, the day is as expected',
    load String comment 'the load that is held',
    run String comment 'the run that computed it, as the archive names it',
    findings String comment 'in what the day is far from the others, as JSON; of a release, what was accepted',
    said_by String comment 'who released it',
    because String comment 'and why',
    from_now_on Bool comment 'whether the following days may be like it, too',
    recorded_at DateTime64(6, 'UTC') default now64(6)
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
    user_id String comment 'always text, so that integers of any sign and width, UUIDs and strings stay distinct',
    os LowCardinality(String) comment 'from the latest action that day, or else from the latest earlier action; unknown if there is none',
    gender LowCardinality(String) comment 'like os',
    age LowCardinality(String) comment 'like os',
    country LowCardinality(String) default 'unknown' comment 'like os; unknown if the source has none',
    city LowCardinality(String) default 'unknown' comment 'like country',
    source LowCardinality(String) default 'unknown' comment 'like country',
    exp_group LowCardinality(String) default 'unknown' comment 'like country',
    views UInt64,
    likes UInt64,
    messages_received UInt64,
    messages_sent UInt64,
    users_received UInt64 comment 'distinct users who wrote to this user',
    users_sent UInt64 comment 'distinct users this user wrote to',
    feed_active Bool comment 'whether the user did anything in the feed'
)
engine = MergeTree
partition by (event_date, load)
order by user_id;

-- One row per load, dimension and value: the activity of a slice.
create table if not exists dimension_activity_loads
(
    load String,
    event_date Date,
    dimension String comment 'os, gender or age; country, city, source or exp_group if the source has it',
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

-- One row per load, dimension and value: the report's numbers of a slice.
create table if not exists dimension_metrics_loads
(
    load String,
    event_date Date,
    dimension String comment 'os, gender or age; country, city, source or exp_group if the source has it',
    dimension_value String comment 'iOS, male, 25 or unknown',
    feed_users UInt64 comment 'DAU of the feed',
    messenger_users UInt64 comment 'DAU of the messenger: users who sent a message',
    app_users UInt64 comment 'DAU of the app: in the feed, in the messenger, or both',
    both_users UInt64 comment 'users active in the feed and in the messenger',
    views UInt64,
    likes UInt64,
    ctr Nullable(Float64) comment 'likes / views; null if there are no views',
    messages_sent UInt64,
    messages_received UInt64 comment 'messages whose recipient was active in the app that day',
    sent_per_received Nullable(Float64) comment 'messages sent / received; null if none was received'
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
    ctr Nullable(Float64) comment 'likes / views; null if there are no views',
    messages_sent UInt64,
    messages_received UInt64 comment 'messages whose recipient was active in the app that day',
    sent_per_received Nullable(Float64) comment 'messages sent / received; null if none was received'
)
engine = MergeTree
partition by (event_date, load)
order by event_date;

-- The published activity of users, one row per user and day. Whoever may read this view, or the next three, sees only the
-- published loads: the view reads the tables of loads with the rights of the user who created it.
create or replace view user_activity definer = current_user sql security definer as
select
    event_date,
    user_id,
    os,
    gender,
    age,
    country,
    city,
    source,
    exp_group,
    views,
    likes,
    messages_received,
    messages_sent,
    users_received,
    users_sent,
    feed_active
from user_activity_loads
where (event_date, load) in (select published.event_date, published.load from published_loads as published);

-- The published activity of slices, one row per day, dimension and value
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

-- The published metrics of slices, one row per day, dimension and value
create or replace view dimension_metrics definer = current_user sql security definer as
select
    event_date,
    dimension,
    dimension_value,
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
from dimension_metrics_loads
where (event_date, load) in (select published.event_date, published.load from published_loads as published);

-- The published metrics, one row per day
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

-- One row per comparison of a published day with its source, appended and never changed. The latest row of a load is valid.
create table if not exists comparisons
(
    event_date Date,
    load String comment 'the load that was published when the day was compared',
    outcome Enum8('unchanged' = 1, 'kept' = 2, 'restated' = 3) comment 'kept: the source changed, but no number by more than the tolerance',
    change String comment 'what changed, as JSON: sources, metrics, slices; empty if nothing did',
    compared_at DateTime64(6, 'UTC') default now64(6)
)
engine = MergeTree
order by (event_date, compared_at);

-- One row per source: the parts on disk that held its rows when the published days were last compared with it. A later row
-- replaces an earlier one.
create table if not exists source_parts
(
    source String comment 'feed_actions or message_actions',
    state String comment 'as JSON: the view, the first day that was looked at, and for each part the days of which it has rows',
    recorded_at DateTime64(6, 'UTC') default now64(6)
)
engine = ReplacingMergeTree(recorded_at)
order by source;

-- What was sent to whom: one row per step of a claim, appended and never changed. pulse/delivery/ledger.py derives the states.
create table if not exists deliveries
(
    report String,
    event_date Date,
    chat String comment 'as configured: id, or id/thread for a topic',
    claim String comment 'the reference of one attempt to deliver, as `pulse deliveries` shows it',
    step UInt16 comment 'orders the rows of a claim; the step of the row that won orders the claims',
    state Enum8('bid' = 1, 'withdrawn' = 2, 'claimed' = 3, 'sent' = 4, 'failed' = 5, 'unknown' = 6, 'dismissed' = 7),
    action Enum8('send' = 1, 'edit' = 2),
    recipient String comment 'where it went: the chat, or the one it migrated to',
    content_hash String comment 'the hash of the text, the headline numbers and the photo',
    numbers String comment 'the headline numbers as JSON, by column, formatted as in English',
    with_photo Bool,
    message_id Int64 comment '0 if it is unknown',
    run String,
    error String,
    lease Float64 comment 'for how many seconds a bid or a claim is valid',
    recorded_at DateTime64(6, 'UTC') default now64(6)
)
engine = MergeTree
partition by toYear(event_date)
order by (report, event_date, chat, claim, step);

-- One row per bucket of 15 minutes, dimension and value: what the monitoring watches. A later row replaces an earlier one with
-- the same key (read with FINAL); a bucket in which nothing happened has no row.
create table if not exists metric_buckets
(
    bucket DateTime comment 'the first moment of the 15 minutes',
    dimension LowCardinality(String) comment 'total, os, gender or age_group',
    dimension_value LowCardinality(String) comment 'all, iOS, male, 25–34 or unknown',
    app_users UInt64 comment 'distinct users who did anything in the feed or sent a message',
    feed_users UInt64 comment 'distinct users who did anything in the feed',
    views UInt64,
    likes UInt64,
    messenger_users UInt64 comment 'distinct users who sent a message',
    messages_sent UInt64,
    actions UInt64 comment 'the number of all source rows, which shows whether the source has changed since the count',
    refreshed_at DateTime64(6, 'UTC')
)
engine = ReplacingMergeTree(refreshed_at)
partition by toYYYYMM(bucket)
order by (dimension, dimension_value, bucket);

-- The history of the slices that are large enough to watch, one row per slice: for each metric an array of values, and in
-- `positions` the positions of their buckets, counted from the start. A slice is large enough if it has a given share of the active
-- users over the last 168 hours; a week in hours does not depend on clock changes in the server's time zone.
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
    groupArray(intDiv(dateDiff('second', {start:DateTime64(6)}, bucket), 900)) as positions,
    groupArray(app_users) as app_users,
    groupArray(feed_users) as feed_users,
    groupArray(views) as views,
    groupArray(likes) as likes,
    groupArray(messenger_users) as messenger_users,
    groupArray(messages_sent) as messages_sent
from metric_buckets final
where bucket >= {start:DateTime64(6)} and bucket < {end:DateTime64(6)} and (dimension, dimension_value) in (largest)
group by dimension, dimension_value;

-- One row per bucket and series (a metric of a slice): the detector's verdict. A later verdict replaces an earlier one.
create table if not exists verdicts
(
    bucket DateTime,
    metric LowCardinality(String) comment 'empty: the data of all metrics was late when the bucket was first judged',
    dimension LowCardinality(String),
    dimension_value LowCardinality(String),
    kind LowCardinality(String) comment 'normal, drop, spike, data_lag or unknown',
    is_anomaly Bool,
    value Nullable(Float64) comment 'null if it is not known yet',
    expected Nullable(Float64),
    lower Nullable(Float64) comment 'the lower end of the expected range',
    upper Nullable(Float64),
    score Float64 comment 'negative if the value is below the expected one',
    deviation Nullable(Float64) comment 'the deviation over the window, as a share of the expected value',
    window UInt16 comment 'the number of buckets, up to this one, in which the deviation is clearest',
    judged_at DateTime64(6, 'UTC') default now64(6)
)
engine = ReplacingMergeTree(judged_at)
partition by toYYYYMM(bucket)
order by (bucket, metric, dimension, dimension_value);

-- One row per incident, from opening to resolution, as the verdicts show it. A later row replaces an earlier one.
create table if not exists incidents
(
    incident String comment 'the reference of the incident',
    state Enum8('open' = 1, 'resolved' = 2, 'withdrawn' = 3) comment 'withdrawn: later data shows that nothing happened',
    direction LowCardinality(String) comment 'drop, spike or data_lag',
    opened DateTime comment 'the first bucket that shows the incident',
    updated DateTime comment 'the last bucket that shows the incident',
    resolved Nullable(DateTime) comment 'since when no bucket shows the incident',
    metric LowCardinality(String) comment 'the metric of the leading series, which shows the incident best',
    dimension LowCardinality(String),
    dimension_value LowCardinality(String),
    value Nullable(Float64) comment 'the value of the leading series in the last bucket that shows the incident',
    expected Nullable(Float64),
    lower Nullable(Float64),
    upper Nullable(Float64),
    score Float64,
    deviation Nullable(Float64) comment 'the deviation over the window, as a share of the expected value',
    window UInt16,
    series Array(String) comment 'all series that showed the incident: metric, dimension and value',
    showing Array(String) comment 'the series that showed the incident in the last bucket',
    evidence String comment 'the contributions of the slices, as JSON',
    recorded_at DateTime64(6, 'UTC') default now64(6)
)
engine = ReplacingMergeTree(recorded_at)
partition by toYYYYMM(opened)
order by incident;
