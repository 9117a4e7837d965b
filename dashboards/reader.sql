-- The ClickHouse user of dashboards: reads what they show, the published days of three tables, and nothing else.
-- Put in PULSE_DATABASE where that is not pulse, PULSE_TABLE_PREFIX before the tables if it is set, and a password, and
-- run it as a user who may grant.
-- Its address goes into CLICKHOUSE_READER_URL. The sandbox's reader has these grants and settings too: it reads this file.

-- readonly = 2: the tools may set how results look and how long they take, but change no data and not this.
create user if not exists pulse_reader
identified with sha256_password by 'choose-one'
settings readonly = 2, max_execution_time = 60, max_memory_usage = 4000000000;

grant select on pulse.daily_metrics to pulse_reader;
grant select on pulse.dimension_activity to pulse_reader;
grant select on pulse.dimension_metrics to pulse_reader;
