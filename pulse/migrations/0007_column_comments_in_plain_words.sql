-- What the columns mean, in plainer words.

alter table publications
comment column step 'the number of this publication among those of the day, from 1',
comment column load 'the load whose rows are published',
comment column run 'the run that computed the load, as the archive names it',
comment column feed_rows 'the number of rows of feed_events at extraction, for each hour since the start of the day',
comment column message_rows 'the same for message_events',
comment column feed_hashes 'the sum of the hashes of those rows, for each hour since the start of the day; empty if unknown',
comment column message_hashes 'the same for message_events',
comment column extracted_at 'when the earlier of the two extracts began; 1970 if unknown';

alter table user_activity_loads
comment column user_id 'always text, so that integers of any sign and width, UUIDs and strings stay distinct',
comment column os 'from the latest action that day, or else from the latest earlier action; unknown if there is none',
comment column gender 'like os',
comment column age 'like os',
comment column feed_active 'whether the user did anything in the feed';

alter table daily_metrics_loads
comment column ctr 'likes / views; null if there are no views',
comment column sent_per_received 'messages sent / received; null if none was received';

alter table deliveries
comment column claim 'the reference of one attempt to deliver, as `pulse deliveries` shows it',
comment column step 'orders the rows of a claim; the step of the row that won orders the claims',
comment column content_hash 'the hash of the text, the headline numbers and the photo',
comment column numbers 'the headline numbers as JSON, by column, formatted as in English',
comment column message_id '0 if it is unknown',
comment column lease 'for how many seconds a bid or a claim is valid';

alter table metric_buckets
comment column bucket 'the first moment of the 15 minutes',
comment column actions 'the number of all source rows, which shows whether the source has changed since the count';

alter table verdicts
comment column metric 'empty: the data of all metrics was late when the bucket was first judged',
comment column value 'null if it is not known yet',
comment column lower 'the lower end of the expected range',
comment column score 'negative if the value is below the expected one',
comment column deviation 'the deviation over the window, as a share of the expected value',
comment column window 'the number of buckets, up to this one, in which the deviation is clearest';

alter table incidents
comment column incident 'the reference of the incident',
comment column state 'withdrawn: later data shows that nothing happened',
comment column opened 'the first bucket that shows the incident',
comment column updated 'the last bucket that shows the incident',
comment column resolved 'since when no bucket shows the incident',
comment column metric 'the metric of the leading series, which shows the incident best',
comment column value 'the value of the leading series in the last bucket that shows the incident',
comment column deviation 'the deviation over the window, as a share of the expected value',
comment column series 'all series that showed the incident: metric, dimension and value',
comment column showing 'the series that showed the incident in the last bucket';
