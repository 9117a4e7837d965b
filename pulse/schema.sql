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
