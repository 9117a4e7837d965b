-- The simulator of a course in product analytics: gender is a code, and until December 2023 receiver_id is misspelt.

-- One row per feed action
create or replace view feed_events as
select
    user_id,
    time,
    action,
    os,
    transform(ifNull(toString(gender), ''), ['0', '1'], ['female', 'male']) as gender,
    age,
    country,
    city,
    source,
    exp_group
from {source}.feed_actions;

-- One row per message; the attributes are the sender's
create or replace view message_events as
select
    user_id,
    tupleElement(tuple(columns('^rec(ei|ie)ver_id$')), 1) as receiver_id,  -- spelt either way
    time,
    os,
    transform(ifNull(toString(gender), ''), ['0', '1'], ['female', 'male']) as gender,
    age,
    country,
    city,
    source,
    exp_group
from {source}.message_actions;
