-- Which slices are large enough to watch was read over a calendar week, in the server's zone (schema.sql has the new view).

drop view if exists bucket_history;
