-- The metrics of slices. The published days get them from their users.

create or replace table dimension_metrics_loads
(
    load String,
    event_date Date,
    dimension String comment 'os, gender or age',
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

insert into dimension_metrics_loads (
    load, event_date, dimension, dimension_value, feed_users, messenger_users, app_users, both_users, views, likes, ctr, messages_sent,
    messages_received, sent_per_received
)
with published as (
    select
        publications.event_date as event_date,
        argMax(publications.load, (publications.step, publications.extracted_at, publications.load)) as load
    from publications
    group by publications.event_date
),

counts as (
    select
        users.load as load,
        users.event_date as event_date,
        slice.1 as dimension,
        slice.2 as dimension_value,
        countIf(users.feed_active) as feed_users,
        countIf(users.messages_sent > 0) as messenger_users,
        countIf(users.feed_active or users.messages_sent > 0) as app_users,
        countIf(users.feed_active and users.messages_sent > 0) as both_users,
        sum(users.views) as views,
        sum(users.likes) as likes,
        sum(users.messages_sent) as messages_sent,
        sumIf(users.messages_received, users.feed_active or users.messages_sent > 0) as messages_received
    from user_activity_loads as users
    array join [('os', toString(users.os)), ('gender', toString(users.gender)), ('age', toString(users.age))] as slice
    where (users.event_date, users.load) in (select published.event_date, published.load from published)
    group by load, event_date, dimension, dimension_value
)

select
    load,
    event_date,
    dimension,
    dimension_value,
    feed_users,
    messenger_users,
    app_users,
    both_users,
    views,
    likes,
    if(views = 0, null, likes / views) as ctr,
    messages_sent,
    messages_received,
    if(messages_received = 0, null, messages_sent / messages_received) as sent_per_received
from counts
settings max_partitions_per_insert_block = 0;
