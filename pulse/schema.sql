-- What the project owns in ClickHouse. Applied before every run; a statement changes nothing that is already there.
-- Tables are partitioned by day, so that a day is published by replacing its partition.

-- The app's feed actions as the pipeline reads them, one row per action. To read a source with other names, change this view.
--   attributes  stands for the action's os, gender and age together
--   latest      orders actions by time, and carries the attributes along: the greatest is the latest action; of two at the
--               same moment the same one wins whenever it is computed
create or replace view feed_events as
select
    assumeNotNull(toUInt64(actions.user_id)) as user_id,
    actions.time as time,
    actions.action as action,
    cityHash64((actions.os, actions.gender, actions.age)) as attributes,
    bitShiftLeft(toUInt128(toUnixTimestamp64Micro(toDateTime64(assumeNotNull(actions.time), 6))), 64) + attributes as latest,
    ifNull(toString(actions.os), '') as os,
    ifNull(toString(actions.gender), '') as gender,
    ifNull(toString(actions.age), '') as age
from {source}.feed_actions as actions
where actions.user_id is not null;

-- The app's messages as the pipeline reads them, one row per message; os, gender and age are the sender's.
create or replace view message_events as
select
    assumeNotNull(toUInt64(actions.user_id)) as user_id,
    assumeNotNull(toUInt64(actions.receiver_id)) as receiver_id,
    actions.time as time,
    cityHash64((actions.os, actions.gender, actions.age)) as attributes,
    bitShiftLeft(toUInt128(toUnixTimestamp64Micro(toDateTime64(assumeNotNull(actions.time), 6))), 64) + attributes as latest,
    ifNull(toString(actions.os), '') as os,
    ifNull(toString(actions.gender), '') as gender,
    ifNull(toString(actions.age), '') as age
from {source}.message_actions as actions
where actions.user_id is not null and actions.receiver_id is not null;

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
