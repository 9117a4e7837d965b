"""The sandbox's ClickHouse on a server that may use 2 GB, for one statement and in all."""

import sys

from pulse_sandbox import clickhouse, clickhouse_engine, process

MODULE = "benchmarks.small_server"
MEMORY = 2_000_000_000

if __name__ == "__main__":
    for name, field in (("_CONFIG", "{memory}"), ("_USERS", "{query_memory}")):
        text = getattr(clickhouse_engine, name)
        assert field in text
        setattr(clickhouse_engine, name, text.replace(field, str(MEMORY)))
    sys.exit(process.main(MODULE, clickhouse.serve, 0))
