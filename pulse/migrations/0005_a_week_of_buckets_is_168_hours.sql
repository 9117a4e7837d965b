-- The old view looked at a calendar week in the server's time zone to find the slices that are large enough to watch. The new one
-- (see schema.sql) looks at 168 hours.

drop view if exists bucket_history;
