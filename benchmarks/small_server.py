"""The sandbox's ClickHouse limited to 2 GB, both per statement and in total."""

import sys

from pulse_sandbox import clickhouse_rights, clickhouse_stand_in, process

MODULE = "benchmarks.small_server"
MEMORY = 2_000_000_000

if __name__ == "__main__":
    for name, field in (("_CONFIG", "{memory}"), ("_USERS", "{query_memory}")):
        text = getattr(clickhouse_rights, name)
        assert field in text
        setattr(clickhouse_rights, name, text.replace(field, str(MEMORY)))
    sys.exit(process.main(MODULE, clickhouse_stand_in.serve))
