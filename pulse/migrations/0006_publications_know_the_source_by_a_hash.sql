-- Adds hashes of the source's rows, so that rows which were changed in place count as late data, and the time of the extraction, so
-- that an older load does not replace a newer one (schema.sql has the new view).

alter table publications
add column if not exists feed_hashes Array(UInt64) after message_rows,
add column if not exists message_hashes Array(UInt64) after feed_hashes,
add column if not exists extracted_at DateTime64(6, 'UTC') after message_hashes;

alter table publications
comment column feed_hashes 'hashes of those rows, as the extract adds them up by hour; empty: unknown',
comment column message_hashes 'the same of message_events',
comment column extracted_at 'when the earlier of the two extracts began; 1970: unknown';
