-- An app with the tables feed_actions and message_actions: the sandbox's, and the one that the documentation describes.

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
