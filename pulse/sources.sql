-- The app's tables as the pipeline reads them. If a source has other names or types, change them only here, and run
-- `pulse upgrade`, which replaces the views.
--   {id}        the conversion of user ids to the narrowest type that holds those of both views: an integer type, UUID or
--               String. Joins need one type, and narrow integers are much faster than strings
--   attributes  a hash of the action's os, gender and age as this source has them
--   latest      orders actions by time and includes the attributes: the greatest value is the latest action, and of two
--               actions at the same moment always the same one

-- The app's feed actions, one row per action
create or replace view feed_events as
select
    {id}(assumeNotNull(actions.user_id)) as user_id,
    actions.time as time,
    actions.action as action,
    cityHash64(
        'feed',
        ifNull(cityHash64(actions.os), 0),
        ifNull(cityHash64(actions.gender), 0),
        ifNull(cityHash64(actions.age), 0)
    ) as attributes,
    bitShiftLeft(toUInt128(toUnixTimestamp64Nano(toDateTime64(assumeNotNull(actions.time), 9))), 64) + attributes as latest,
    ifNull(toString(actions.os), '') as os,
    ifNull(toString(actions.gender), '') as gender,
    ifNull(toString(actions.age), '') as age
from {source}.feed_actions as actions
where actions.user_id is not null;

-- The app's messages, one row per message; os, gender and age are the sender's
create or replace view message_events as
select
    {id}(assumeNotNull(actions.user_id)) as user_id,
    {id}(assumeNotNull(actions.receiver_id)) as receiver_id,
    actions.time as time,
    cityHash64(
        'message',
        ifNull(cityHash64(actions.os), 0),
        ifNull(cityHash64(actions.gender), 0),
        ifNull(cityHash64(actions.age), 0)
    ) as attributes,
    bitShiftLeft(toUInt128(toUnixTimestamp64Nano(toDateTime64(assumeNotNull(actions.time), 9))), 64) + attributes as latest,
    ifNull(toString(actions.os), '') as os,
    ifNull(toString(actions.gender), '') as gender,
    ifNull(toString(actions.age), '') as age
from {source}.message_actions as actions
where actions.user_id is not null and actions.receiver_id is not null;
