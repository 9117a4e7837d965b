-- An app with the tables feed_actions and message_actions. To both views add country, city, source, exp_group if it has them.

-- One row per feed action
create or replace view feed_events as
select
    user_id,
    time,
    action,
    os,
    gender,
    age
from {source}.feed_actions;

-- One row per message; os, gender and age are the sender's
create or replace view message_events as
select
    user_id,
    receiver_id,
    time,
    os,
    gender,
    age
from {source}.message_actions;
