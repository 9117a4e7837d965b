-- One table for events of all kinds, as PostHog has it: the person in distinct_id, everything else in properties as JSON.
-- The events are named view, like and message; a message's receiver is in its property receiver_id. To split the days by
-- country, add JSONExtractString(properties, '$geoip_country_code') as country to both views; each such property takes time.

-- One row per feed action
create or replace view feed_events as
select
    distinct_id as user_id,
    timestamp as time,
    event as action,
    JSONExtractString(properties, '$os') as os,
    JSONExtractString(properties, 'gender') as gender,
    JSONExtractString(properties, 'age') as age
from {source}.events
where event in ('view', 'like');

-- One row per message; the attributes are the sender's
create or replace view message_events as
select
    distinct_id as user_id,
    JSONExtractString(properties, 'receiver_id') as receiver_id,
    timestamp as time,
    JSONExtractString(properties, '$os') as os,
    JSONExtractString(properties, 'gender') as gender,
    JSONExtractString(properties, 'age') as age
from {source}.events
where event = 'message';
