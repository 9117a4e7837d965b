-- Adds a second, independent hash of the source's rows to publications, and the table that records how the published days were
-- compared with the source (schema.sql has the new tables). Publications from before have no second hash: they are compared by
-- their numbers of rows and the first hash, as before.

alter table publications
add column if not exists feed_second_hashes Array(UInt64) after message_hashes,
add column if not exists message_second_hashes Array(UInt64) after feed_second_hashes;

alter table publications
comment column feed_second_hashes 'the same sums of an independent hash of the rows of feed_events; empty if unknown',
comment column message_second_hashes 'the same for message_events';
