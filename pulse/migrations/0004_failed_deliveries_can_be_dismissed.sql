-- A failed delivery to a chat that gets no more messages can be dismissed. Two columns get comments with their current meaning.

alter table deliveries
modify column state Enum8(
    'bid' = 1, 'withdrawn' = 2, 'claimed' = 3, 'sent' = 4, 'failed' = 5, 'unknown' = 6, 'dismissed' = 7
);

alter table deliveries
comment column step 'the order of the rows of a claim, and by the row that won it that of the claims',
comment column numbers 'the headline numbers as JSON: by column, as English writes them';
