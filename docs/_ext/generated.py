"""Pages that are made from the code when the documentation is built, so that they cannot fall behind it.

They are written to `docs/generated/`, which git does not know: the settings, the metrics and tables, the commands, the
entries of the manifest, the runbooks of the DAGs, and the notebooks themselves.
"""

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import click
import typer
from sphinx.application import Sphinx

from pulse import cli, metrics, settings
from pulse.archive import manifest
from pulse.publishing import keeping

HERE = Path(__file__).parent.parent / "generated"
DAGS = ("etl", "restate", "daily_report", "live_metrics", "monitoring", "doctor", "retention")


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for its sources."""
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    pages = {
        "settings": _settings(),
        "metrics": _metrics(),
        "tables": _tables(),
        "commands": _commands(),
        "manifest": _manifest(),
        "runbooks": _runbooks(),
        "retention": _retention(),
    }
    for name, text in pages.items():
        (HERE / f"{name}.md").write_text(text)
    _notebooks()
    return {"parallel_read_safe": True}


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def _settings() -> str:
    """The settings, with the comments and defaults of `.env.example`."""
    rows, said, names = [], [], {str(field.alias) for field in settings.Settings.model_fields.values()}
    for line in [*(settings.ROOT / ".env.example").read_text().splitlines(), ""]:
        name, equals, value = line.partition("=")
        if line.startswith("#"):
            said.append(line.lstrip("# "))
        elif equals:
            meaning, _, default = " ".join(said).partition(" Default: ")
            rows.append([f"`{name}`", f"`{value}`" if value else default.rstrip(".") or "not set", meaning])
            names.remove(name)
        else:
            said = []
    assert not names, f".env.example lacks {names}"
    kernel = ", ".join(f"`{name}`" for name in settings.KERNEL)
    return (
        "# Settings\n\nSettings are environment variables, or lines of the file `.env` in the project's folder, of "
        "which `.env.example` is a template. The environment wins over the file; under Airflow, the connections "
        "`clickhouse_default` and `telegram_default` win over both.\n\n"
        + _table(["setting", "default", "meaning"], rows)
        + "\n\nA password, token or key has at least six characters, since a shorter one could not be masked without "
        f"masking ordinary text.\n\nThe kernel of a notebook gets only these settings: {kernel}; no other secret "
        "reaches it.\n"
    )


def _metrics() -> str:
    rows = [
        [
            f"`{metric.column}`",
            metric.formula,
            f"{metric.label_alone('en')}; {metric.label_alone('ru')}",
            metric.unit,
            ", ".join(f"`{table}`" for table in metric.tables),
            ", ".join(metric.shown) or "–",
        ]
        for metric in metrics.METRICS
    ]
    dimensions = [
        [
            f"`{each.column}`",
            each.en,
            each.ru,
            "if the source has it" if each.optional else "always",
            f"`{each.watched}`" if each.is_watched else "–",
        ]
        for each in metrics.DIMENSIONS
    ]
    return (
        "# Metrics and dimensions\n\nThe one list is `pulse/metrics.py`; this page is made from it.\n\n## Metrics\n\n"
        + _table(["column", "formula", "name", "unit", "tables", "shown in"], rows)
        + "\n\n`users` and `count` change in percent, a `share` in percentage points, a `ratio` by its difference.\n\n"
        + "## Dimensions\n\n"
        + _table(["column", "name", "in Russian", "splits the day", "in the monitoring"], dimensions)
        + f"\n\nA bucket of the monitoring has {metrics.BUCKET.seconds // 60} minutes. The report compares a day with "
        f"the same weekday {metrics.WEEK.days} days before.\n"
    )


def _tables() -> str:
    """The tables and views of `schema.sql`, with its comments."""
    text = (settings.ROOT / "pulse" / "schema.sql").read_text()
    parts = ["# Tables\n\nPulse's own tables in ClickHouse, from `pulse/schema.sql`.\n"]
    # A semicolon in a comment or a string does not end a statement.
    pattern = re.compile(
        r"((?:^--[^\n]*\n)*)^create (?:table if not exists|or replace view) (\w+)"
        r"((?:--[^\n]*|'(?:[^']|'')*'|[^;'-]|-(?!-))*);",
        re.MULTILINE,
    )
    for found in pattern.finditer(text):
        said = " ".join(line.lstrip("- ").strip() for line in found[1].splitlines())
        parts.append(f"## `{found[2]}`\n\n{said}\n")
        columns = re.findall(r"^    (\w+) ([A-Z][^\n]*?)(?: comment '((?:[^']|'')*)')?,?$", found[3], re.MULTILINE)
        if columns:
            rows = [[f"`{name}`", f"`{kind.rstrip(',')}`", comment] for name, kind, comment in columns]
            parts.append(_table(["column", "type", "meaning"], rows) + "\n")
    return "\n".join(parts)


def _commands() -> str:
    """Every command with its help."""
    parts = ["# Commands\n\nWhat `pulse --help` says, command by command.\n"]
    command = typer.main.get_command(cli.app)
    parts += _of(command, "pulse", click.Context(command, info_name="pulse"))
    return "\n".join(parts)


def _of(command: Any, name: str, context: Any) -> list[str]:
    parts = []
    if name != "pulse":
        says = (command.help or "").strip()
        parts.append(f"## `{name}`\n\n{says}\n")
        rows = []
        for each in command.params:
            if each.name == "help" or each.name in ("install_completion", "show_completion"):
                continue
            label = ", ".join(each.opts) if each.param_type_name == "option" else str(each.metavar or each.name).upper()
            rows.append([f"`{label}`", getattr(each, "help", "") or ""])
        if rows:
            parts.append(_table(["argument", "meaning"], rows) + "\n")
    for child in sorted(getattr(command, "commands", {})):
        parts += _of(command.commands[child], f"{name} {child}", context)
    return parts


def _manifest() -> str:
    return f"# The manifest's entries\n\n{_prose(manifest.__doc__ or '')}\n"


def _runbooks() -> str:
    """The documentation of the DAGs, which Airflow shows on their pages."""
    parts = ["# Runbooks\n\nWhat each DAG does, and what to do when it fails. Airflow shows these texts too.\n"]
    for name in DAGS:
        said = ast.get_docstring(ast.parse((settings.ROOT / "dags" / f"{name}.py").read_text())) or ""
        parts.append(re.sub(r"^#", "##", said, flags=re.MULTILINE) + "\n")
    return "\n".join(parts)


def _retention() -> str:
    rows = [
        ["the archive: quiet notebooks", str(keeping.ARCHIVE_DAYS)],
        ["Airflow's logs, and its database", str(keeping.LOG_DAYS)],
        *([f"`{kept.table}`", str(kept.days)] for kept in keeping.TABLES),
        ["staging tables of a run", str(keeping.STAGING_DAYS)],
        ["loads that were never published", str(keeping.UNPUBLISHED_DAYS)],
        ["users of loads that another one replaced", f"{keeping.REPLACED_HOURS} hour"],
        ["metrics and slices of such loads, for `pulse as-of`", str(keeping.REPLACED_DAYS)],
    ]
    return (
        "# How long everything is kept\n\nThe nightly DAG `retention` deletes what is older. Months are deleted as a "
        "whole. Published days, deliveries and publications are kept forever. `pulse/publishing/keeping.py` has the "
        "numbers.\n\n"
        + _table(["what", "days"], rows)
        + "\n\nAirflow does not let DAGs touch its own database: `make up` cleans it once a day; elsewhere, run "
        "`airflow db clean` from cron.\n"
    )


def _notebooks() -> None:
    """The notebooks as pages, and an index of them."""
    names = []
    for path in sorted((settings.ROOT / "notebooks").glob("*/*.ipynb")):
        target = HERE / "notebooks" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        names.append(f"notebooks/{path.parent.name}/{path.stem}")
    listed = "\n".join(names)
    (HERE / "notebooks.md").write_text(
        "# The notebooks\n\nThe code that makes every number. The archive has them executed, with their outputs.\n\n"
        f"```{{toctree}}\n{listed}\n```\n"
    )


def _prose(docstring: str) -> str:
    """A docstring as Markdown: its indented lines are code."""
    return re.sub(
        r"((?:^    .*\n?)+)", lambda found: f"```text\n{found[1].rstrip()}\n```\n", docstring, flags=re.MULTILINE
    )
