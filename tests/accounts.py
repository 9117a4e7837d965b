"""The sandbox's ClickHouse for an account of few rights: of all users, the one that sends requests has only these.

The engine itself enforces the rights. Its only user for requests, `default`, has the grants in the file `grants` of the
data folder and no others. Without such a file it has the sandbox owner's. The user `administrator`, with whose rights
views may read, may read everything.

With a file `cluster` in the data folder, the owner may also read from other servers, and the server has a cluster
`company` and a named collection `app_server`. Both are this server itself: the engine listens to no other.
"""

import sys

from pulse_sandbox import clickhouse_engine, clickhouse_rights, clickhouse_stand_in, process
from pulse_sandbox.clickhouse_connection import Connection
from pulse_sandbox.clickhouse_query import Query

MODULE = "accounts"
GRANTS, CLUSTER = "grants", "cluster"

# The stand-in creates these two databases when it starts, and a temporary table for the data of each INSERT.
STAND_INS = (
    "GRANT CREATE DATABASE ON pulse.*, CREATE DATABASE ON app.*",
    "GRANT CREATE TEMPORARY TABLE ON *.*",
    "GRANT TABLE ENGINE ON Memory",
)
ADMINISTRATOR = """<administrator>
    <no_password/><networks><ip>::1</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT SELECT ON *.*</query></grants>
  </administrator></users>"""
ROLES = "<query>GRANT owner</query><query>GRANT viewer</query>"


ELSEWHERE = """
  <remote_servers><company><shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard></company></remote_servers>
  <named_collections><app_server><host>127.0.0.1</host></app_server></named_collections>
  <tcp_port>9000</tcp_port>
</clickhouse>"""
READS_ELSEWHERE = (
    "GRANT READ ON REMOTE",
    "GRANT NAMED COLLECTION ON *",
    "GRANT CREATE TEMPORARY TABLE ON *.*",
    "GRANT TABLE ENGINE ON Distributed",
)


def _limit(folder: str) -> None:
    """Give the engine the users that this module describes."""
    users = clickhouse_rights._USERS.replace("</users>", ADMINISTRATOR)
    path = clickhouse_rights.Path(folder) / GRANTS
    if path.exists():
        granted = [*STAND_INS, *path.read_text().splitlines()]
        users = users.replace(ROLES, "".join(f"<query>{each}</query>" for each in granted))
        # As on servers as they are installed, where tables of the system are not everybody's.
        clickhouse_rights._CONFIG = clickhouse_rights._CONFIG.replace(
            "</access_control",
            "<select_from_system_db_requires_grant>true</select_from_system_db_requires_grant></access_control",
        )
    if (clickhouse_rights.Path(folder) / CLUSTER).exists():
        clickhouse_rights._OWNER = (*clickhouse_rights._OWNER, *READS_ELSEWHERE)
        clickhouse_rights._CONFIG = clickhouse_rights._CONFIG.replace("</clickhouse>", ELSEWHERE)
    assert users.count("administrator>") == 2
    clickhouse_rights._USERS = users


def _connect_read_only() -> None:
    """Make the user `reader` one whose profile says `readonly = 1`, with the rights of the account."""
    connect = clickhouse_engine.Engine._connect

    def limited(engine: clickhouse_engine.Engine, query: Query) -> Connection:
        as_owner = Query(**{**vars(query), "user": "pulse"}) if query.user == clickhouse_stand_in.READER else query
        connection = connect(engine, as_owner)
        if query.user == clickhouse_stand_in.READER:
            connection.query("SET readonly = 1")
        return connection

    clickhouse_engine.Engine._connect = limited  # type: ignore[method-assign]


if __name__ == "__main__":
    _limit(sys.argv[sys.argv.index("--data") + 1])
    _connect_read_only()
    sys.exit(process.main(MODULE, clickhouse_stand_in.serve))
