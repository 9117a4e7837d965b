"""What is kept how long: as README states it, and in whole months."""

import re
from datetime import UTC, datetime

from notebooks.etl import Etl
from pulse import keeping, schema
from pulse.settings import ROOT


def test_readme_states_what_is_kept_how_long() -> None:
    stated = dict(re.findall(r"^\| (.+) \| (\d+(?: hour)?) \|$", (ROOT / "README.md").read_text(), re.MULTILINE))
    for kept in keeping.TABLES:
        assert stated[f"`{kept.table}`"] == str(kept.days)
    assert stated["the archive: quiet notebooks"] == str(keeping.ARCHIVE_DAYS)
    assert stated["Airflow's logs, and its database"] == str(keeping.LOG_DAYS)
    assert stated["staging tables of a run"] == str(keeping.STAGING_DAYS)
    assert stated["loads that were never published"] == str(keeping.UNPUBLISHED_DAYS)
    assert stated["loads that another one took the place of"] == f"{keeping.REPLACED_HOURS} hour"


def test_months_go_once_their_last_day_is_older(etl: Etl) -> None:
    schema.ensure(etl.db)
    days = ["2025-01-31 12:00:00", "2025-02-01 12:00:00", "2025-05-20 12:00:00"]
    for day in days:
        etl.db.execute("insert into verdicts (bucket, kind) select {day:DateTime('UTC')}, 'normal'", day=day)
    assert keeping.clean(etl.db, datetime(2025, 5, 11, 23, tzinfo=UTC)) == []  # 100 days after the 31st of January
    assert keeping.clean(etl.db, datetime(2025, 5, 12, tzinfo=UTC)) == ["verdicts 202501"]
    assert keeping.clean(etl.db, datetime(2025, 5, 12, tzinfo=UTC)) == []
    left = etl.db.read("select toString(toDate(bucket, 'UTC')) as day from verdicts order by bucket")["day"].tolist()
    assert left == ["2025-02-01", "2025-05-20"]
