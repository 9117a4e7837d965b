-- A delivery that failed to a chat that is not written to any more can be put aside.

alter table deliveries
modify column state Enum8(
    'bid' = 1, 'withdrawn' = 2, 'claimed' = 3, 'sent' = 4, 'failed' = 5, 'unknown' = 6, 'dismissed' = 7
);
