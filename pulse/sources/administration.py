"""The SQL with which an administrator lets one account run all notebooks without any right on the app's tables.

The account has rights on the project's database alone. It reads the app through two views there, which read with the
rights of the administrator who created them.
"""

import re

from pulse import PulseError
from pulse.clickhouse import ClickHouse, quoted
from pulse.sources import Source, views

CURRENT_USER = "current_user"

INTRODUCTION = """\
-- Pulse reads {source}. An administrator runs this once, and again if Pulse asks for it.

-- The database of Pulse's own tables
create database if not exists {database};

-- The views through which Pulse reads the app, with the rights of {definer}: whoever may read the
-- views needs no right on the app's tables. The first has one row per feed action, the second one row per message.
"""

GRANTS = """\
-- The rights of the account that runs the notebooks: none on {app}, and it writes to nothing else. If there
-- is no such account yet, create it first:
--   create user {account} identified with sha256_password by '…'

-- It computes inside the database:
grant select, insert on {tables} to {account};
-- It creates missing tables and views, and staging tables for each run:
grant create table, drop table on {tables} to {account};
-- It drops days and months that are not kept any longer, and `pulse upgrade` adds columns:
grant alter table on {tables} to {account};
-- It looks up which of them there are:
grant select on system.parts to {account};
-- On some servers an engine needs a grant:
grant table engine on MergeTree to {account};
grant table engine on ReplacingMergeTree to {account};
"""
"""What the account needs, and nothing else."""

RIGHTS = tuple(
    right
    for listed in re.findall(r"^grant (.+) on \{tables\} to", GRANTS, re.MULTILINE)
    for right in listed.split(", ")
)
"""What it may do in the project's database."""


def tables(db: ClickHouse) -> str:
    """The tables of the project, as a grant names them: all of its database, or all with its prefix."""
    return f"{quoted(db.database)}.{db.prefix}*"


def grants(db: ClickHouse, app: str, account: str) -> str:
    """The statements that give the account its rights.

    Args:
        db: the project's database.
        app: the app's database.
        account: a ClickHouse user, or a role.
    """
    return GRANTS.format(app=app, tables=tables(db), account=quoted(account))


def sql(db: ClickHouse, source: Source, account: str, definer: str = CURRENT_USER) -> str:
    """The whole script. It can be run again, after a change of the source or of this checkout.

    Args:
        db: the project's database, which need not exist; its account has to be able to read the source.
        source: where the app's tables are.
        account: the ClickHouse user that runs the notebooks.
        definer: the ClickHouse user with whose rights the views read the source; whoever runs the script unless given.

    Raises:
        SourceError: the source is not as its `sources.sql` says.
        PulseError: this account may not read the source.
    """
    outside = ClickHouse(db.url, source.database, db.zone)  # the project's database need not exist yet
    made = views.read(outside, source)
    if any(view.select is None for view in made):
        raise PulseError(
            f"This account may not read {source.database}, so the types of its columns cannot be found out. Set "
            "CLICKHOUSE_URL to an account that may: a read-only one is enough, since nothing is changed."
        )
    own = definer == CURRENT_USER
    security = f" definer = {definer if own else quoted(definer)} sql security definer"
    whose = "the user who runs this" if own else definer
    names = {view.name: quoted(f"{db.database}.{db.full_name(view.name)}") for view in made}
    return "\n".join(
        (
            INTRODUCTION.format(source=source, database=quoted(db.database), definer=whose),
            *(f"{view.creation('create or replace view', security, names[view.name])};\n" for view in made),
            grants(db, source.database, account),
        )
    )
