-- What the project owns in ClickHouse. Applied before every run; a statement changes nothing that is already there.
-- Tables of days are partitioned by day, so that a day is published by replacing its partition.

-- One row per user and day on which the user acted or received a message.
create table if not exists user_activity
(
    event_date Date,
    user_id UInt64,
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
partition by event_date
order by user_id;

-- One row per day, dimension and value: the activity of a slice.
create table if not exists dimension_activity
(
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
partition by event_date
order by (dimension, dimension_value);

-- One row per day: the single source of the numbers in reports and dashboards. Its row says that the day is published.
create table if not exists daily_metrics
(
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
partition by event_date
order by event_date;

-- What was sent to whom: one row a step of a claim, appended and never changed; pulse/deliveries.py reads it as states.
create table if not exists deliveries
(
    report String,
    event_date Date,
    chat String comment 'as configured: id, or id/thread for a topic',
    claim String comment 'one attempt; the reference that `pulse deliveries` shows',
    step UInt16 comment 'the order of the rows of a claim',
    state Enum8('bid' = 1, 'withdrawn' = 2, 'claimed' = 3, 'sent' = 4, 'failed' = 5, 'unknown' = 6),
    action Enum8('send' = 1, 'edit' = 2),
    recipient String comment 'where it went: the chat, or the one it migrated to',
    content_hash String comment 'of text, headline numbers and photo',
    numbers String comment 'the headline numbers as JSON, label to value as shown',
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
-- buckets, counted from the start, beside it. Large enough is a share of the active users over the last week.
create or replace view bucket_history as
with largest as (
    select
        dimension,
        dimension_value
    from metric_buckets final
    where bucket >= {end:DateTime} - interval 7 day and bucket < {end:DateTime}
    group by dimension, dimension_value
    having sum(app_users) >= {least_share:Float64} * (
        select sum(whole.app_users)
        from metric_buckets as whole final
        where whole.bucket >= {end:DateTime} - interval 7 day and whole.bucket < {end:DateTime} and whole.dimension = 'total'
    )
)

select
    dimension,
    dimension_value,
    groupArray(intDiv(dateDiff('second', {start:DateTime}, bucket), 900)) as places,
    groupArray(app_users) as app_users,
    groupArray(feed_users) as feed_users,
    groupArray(views) as views,
    groupArray(likes) as likes,
    groupArray(messenger_users) as messenger_users,
    groupArray(messages_sent) as messages_sent
from metric_buckets final
where bucket >= {start:DateTime} and bucket < {end:DateTime} and (dimension, dimension_value) in (largest)
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
