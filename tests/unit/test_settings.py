"""Settings come from the environment, are checked, and never show a secret."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pulse import settings
from pulse.delivery.access import bot_access


@pytest.fixture(autouse=True)
def no_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a developer's own .env and environment out of these tests."""
    monkeypatch.setitem(settings.Settings.model_config, "env_file", None)
    for field in settings.Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)


def test_by_default_everything_points_at_the_sandbox() -> None:
    config = settings.load()
    assert config.clickhouse_url.get_secret_value() == settings.sandbox_url("clickhouse", settings.SANDBOX_OWNER)
    assert (config.database, config.source_database, config.timezone) == ("pulse", "app", "Europe/Moscow")
    assert config.output == str(settings.ROOT / "output")


def test_the_sandbox_is_found_where_this_checkouts_stand_ins_listen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "SANDBOX", tmp_path)
    assert settings.sandbox_url("telegram") == "http://127.0.0.1:9"  # none has ever run
    for stand_in, port in (("clickhouse", 40123), ("telegram", 40081)):
        (tmp_path / stand_in).mkdir()
        (tmp_path / stand_in / "port").write_text(f"{port}")
    config = settings.load()
    assert config.clickhouse_url.get_secret_value() == "http://pulse:sandbox-only@127.0.0.1:40123"
    assert config.clickhouse_reader_url.get_secret_value() == "http://reader:sandbox-reader@127.0.0.1:40123"
    assert bot_access(config)[0] == "http://127.0.0.1:40081"


def test_the_example_has_exactly_the_settings_there_are() -> None:
    lines = (settings.ROOT / ".env.example").read_text().splitlines()
    named = {line.split("=")[0] for line in lines if line and not line.startswith("#")}
    assert named == {field.alias for field in settings.Settings.model_fields.values()}


def test_the_example_contains_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    default = settings.load()
    monkeypatch.setitem(settings.Settings.model_config, "env_file", settings.ROOT / ".env.example")
    assert settings.load() == default


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PULSE_TIMEZONE", "Mars/Olympus", "PULSE_TIMEZONE: expected an IANA time zone"),
        ("PULSE_LANGUAGE", "de", "PULSE_LANGUAGE: Input should be 'en' or 'ru'"),
        ("PULSE_DATABASE", "drop table", "PULSE_DATABASE"),
        ("CLICKHOUSE_URL", "http://pulse:p%40ss@db:8123", "CLICKHOUSE_URL: expected a secret of at least 6 characters"),
        (
            "CLICKHOUSE_READER_URL",
            "http://pulse:12345@db:8123",
            "CLICKHOUSE_READER_URL: expected a secret of at least 6",
        ),
        ("TELEGRAM_BOT_TOKEN", "12:34", "TELEGRAM_BOT_TOKEN: expected a secret of at least 6 characters"),
        ("SUPERSET_PASSWORD", "admin", "SUPERSET_PASSWORD: expected a secret of at least 6 characters"),
        ("REDASH_API_KEY", "a", "REDASH_API_KEY: expected a secret of at least 6 characters"),
        *(
            (name, "https://admin:hunter2secret@tool.example.com", f"{name}: expected an address without user and pass")
            for name in ("PULSE_ARCHIVE_URL", "SUPERSET_URL", "REDASH_URL", "TELEGRAM_API_URL")
        ),
        ("CLICKHOUSE_URL", "localhost", "CLICKHOUSE_URL: expected http(s)://user:password@host:port"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(settings.SettingsError, match=r"Correct it in the environment or in \.env\.") as found:
        settings.load()
    assert said in str(found.value)
    assert "\n" not in str(found.value)
    assert "hunter2secret" not in str(found.value)


def test_a_secret_in_a_wrong_setting_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", "ftp://pulse:hunter2secret@db")
    with pytest.raises(settings.SettingsError) as found:
        settings.load()
    assert "hunter2secret" not in str(found.value)


def test_printing_the_settings_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", "https://pulse:p%40ssw0rd@db:8443")
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "123456:abcdefgh")
    config = settings.load()
    assert {"p%40ssw0rd", "p@ssw0rd", "123456:abcdefgh"} <= set(config.secrets)
    assert not [secret for secret in config.secrets if secret in repr(config)]


def test_an_empty_password_is_not_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", "http://default:@db:8123")
    assert "" not in settings.load().secrets


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("archive", str(settings.ROOT / "archive")),
        ("./a/b/", str(settings.ROOT / "a" / "b")),
        ("/var/archive", "/var/archive"),
        ("~/archive", str(Path.home() / "archive")),
        ("s3://bucket/archive", "s3://bucket/archive"),
    ],
)
def test_a_relative_archive_is_resolved_against_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, meant: str
) -> None:
    monkeypatch.setenv("PULSE_OUTPUT", given)
    monkeypatch.chdir(tmp_path)
    assert settings.load().output == meant


def test_a_kernel_gets_only_one_secret() -> None:
    config = settings.load(SUPERSET_PASSWORD="of-superset", REDASH_API_KEY="of-redash")  # noqa: S106
    assert tuple(config.for_kernels) == settings.KERNEL
    url = config.clickhouse_url.get_secret_value()
    assert [name for name, value in config.for_kernels.items() if any(s in value for s in config.secrets)] == [
        "CLICKHOUSE_URL"
    ]
    assert config.for_kernels["CLICKHOUSE_URL"] == url


def test_yesterday_is_the_local_day_before_today() -> None:
    config = settings.load()
    local_today = datetime.now(UTC).astimezone(ZoneInfo("Europe/Moscow")).date()
    assert config.event_day("yesterday") == local_today - timedelta(days=1)
    assert config.event_day("2024-02-29") == date(2024, 2, 29)


@pytest.mark.parametrize("text", ["2026-13-45", "2026-02-30", "ystrday", "", "22.11.2026"])
def test_an_invalid_date_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(settings.SettingsError, match=rf"'{text}' is not a date; give one such as 20"):
        settings.load().event_day(text)


def test_a_day_that_has_not_ended_is_refused() -> None:
    config = settings.load()
    for ahead in (1, 2, 400):
        day = config.event_day("yesterday") + timedelta(days=ahead)
        with pytest.raises(settings.SettingsError, match="has not ended yet in Europe/Moscow"):
            config.event_day(str(day))


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 1), 24)])
def test_a_day_at_a_clock_change_has_23_or_25_hours(day: date, hours: int) -> None:
    start, end = (moment.astimezone(UTC) for moment in settings.day_bounds(day, ZoneInfo("Europe/Berlin")))
    assert end - start == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-03-12T15:07:30", "2025-03-12T15:07:00+03:00"),
        ("2025-03-12T15:07:00+00:00", "2025-03-12T18:07:00+03:00"),
        ("2025-03-12", "2025-03-12T00:00:00+03:00"),
    ],
)
def test_a_moment_is_local_unless_it_says_otherwise(text: str, moment: str) -> None:
    assert settings.load(PULSE_TIMEZONE="Europe/Moscow").moment(text).isoformat() == moment


CHANGES = {  # for each zone, when its clocks went forward and back
    "Europe/Berlin": ("2025-03-30T01:00Z", "2025-10-26T01:00Z"),
    "America/New_York": ("2025-03-09T07:00Z", "2025-11-02T06:00Z"),
    "America/Havana": ("2025-03-09T05:00Z", "2025-11-02T05:00Z"),  # forward at midnight; back to midnight
    "Australia/Lord_Howe": ("2025-10-04T15:30Z", "2025-04-05T15:00Z"),  # by half an hour
    "Pacific/Chatham": ("2025-09-27T14:00Z", "2025-04-05T14:00Z"),  # 12:45 ahead of UTC
    "Antarctica/Troll": ("2025-03-30T01:00Z", "2025-10-26T01:00Z"),  # by two hours
    "Africa/Casablanca": ("2025-04-06T02:00Z", "2025-02-23T02:00Z"),
}


@pytest.mark.parametrize("timezone", CHANGES)
def test_a_moment_with_an_offset_is_exact_at_a_clock_change(timezone: str) -> None:
    config = settings.load(PULSE_TIMEZONE=timezone)
    for change in map(datetime.fromisoformat, CHANGES[timezone]):
        before, after = (
            (change + timedelta(seconds=seconds)).astimezone(config.zone).utcoffset() for seconds in (-1, 0)
        )
        assert before != after
        for minutes in range(-180, 181, 5):
            instant = change + timedelta(minutes=minutes)
            local = config.moment(instant.astimezone(config.zone).isoformat())
            assert local.timestamp() == instant.timestamp()
            assert local.utcoffset() == (before if minutes < 0 else after)


@pytest.mark.parametrize(
    ("now", "asked", "has_come"),
    [
        ("2025-10-26T02:10+01:00", "2025-10-26T02:50+02:00", True),  # twenty minutes ago, before the clock was set back
        ("2025-10-26T02:10+01:00", "2025-10-26T02:50", True),  # the first of the two moments with this time
        ("2025-10-26T02:50+02:00", "2025-10-26T02:10+01:00", False),  # in twenty minutes
    ],
)
def test_whether_a_moment_is_past_is_decided_by_instants(
    monkeypatch: pytest.MonkeyPatch, now: str, asked: str, has_come: bool
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromisoformat(now).astimezone(tz)

    monkeypatch.setattr(settings, "datetime", Clock)
    config = settings.load(PULSE_TIMEZONE="Europe/Berlin")
    if has_come:
        assert config.moment(asked).isoformat() == "2025-10-26T02:50:00+02:00"
    else:
        with pytest.raises(settings.SettingsError, match="is in the future in Europe/Berlin"):
            config.moment(asked)
