-- Copies the published days as loads into new tables beside those that are read. User ids become text.

create or replace table publications_copy
(
    event_date Date,
    step UInt32 comment 'counts the publications of the day',
    load String comment 'whose rows are published',
    run String comment 'the run that made them, as the archive names it',
    feed_rows Array(UInt64) comment 'rows of feed_events when it was extracted, for each hour since the day began',
    message_rows Array(UInt64) comment 'the same of message_events',
    contents String comment 'what was published, by table, as JSON: columns, rows, and sum(cityHash64(tuple(columns)))',
    published_at DateTime64(6, 'UTC') default now64(6)
)
engine = MergeTree
order by (event_date, step);

insert into publications_copy (event_date, step, load, run)
select
    event_date,
    1 as step,
    'version_1' as load,
    'before loads' as run
from daily_metrics;

create or replace table user_activity_copy
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

insert into user_activity_copy (load, event_date, user_id, os, gender, age, views, likes, messages_received, messages_sent, users_received, users_sent, feed_active)
select
    'version_1' as load,
    event_date,
    toString(user_activity.user_id) as user_id,
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
from user_activity
settings max_partitions_per_insert_block = 0;

create or replace table dimension_activity_copy
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

insert into dimension_activity_copy (load, event_date, dimension, dimension_value, views, likes, messages_received, messages_sent, users_received, users_sent)
select
    'version_1' as load,
    event_date,
    dimension,
    dimension_value,
    views,
    likes,
    messages_received,
    messages_sent,
    users_received,
    users_sent
from dimension_activity
settings max_partitions_per_insert_block = 0;

create or replace table daily_metrics_copy
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

insert into daily_metrics_copy (load, event_date, feed_users, messenger_users, app_users, both_users, views, likes, ctr, messages_sent, messages_received, sent_per_received)
select
    'version_1' as load,
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
from daily_metrics
settings max_partitions_per_insert_block = 0;
