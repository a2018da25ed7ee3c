"""Commands that set paywatch up and look whether it is: migrate, doctor."""

import asyncio

import typer

from paywatch.cli.output import emit_json, say, show_table
from paywatch.cli.running import Json, load_settings, run
from paywatch.config import Settings
from paywatch.errors import ConfigError
from paywatch.service.doctor import Finding
from paywatch.store.engine import sqlalchemy_url
from paywatch.store.migrate import head_revision
from paywatch.store.migrate import migrate as migrate_database
from paywatch.wiring import examine, open_database


def migrate(*, as_json: Json = False) -> None:
    """Bring the database to this version's schema. Safe to repeat.

    An embedded database is brought up to date by itself; one of your own is changed by this
    command only. Stop the daemon first where the release notes say so.
    """
    settings = load_settings()
    before, after = run(_migrate(settings))
    document = {"from": before, "to": after, "changed": before != after}
    if as_json:
        emit_json(document)
    elif before == after:
        say(f"The schema is at {after} already: nothing to do.")
    else:
        say(f"The schema went from {before or 'nothing'} to {after}.")


async def _migrate(settings: Settings) -> tuple[str | None, str | None]:
    async with open_database(settings, migrated=False) as database:
        before = await database.revision()
        after = await asyncio.to_thread(migrate_database, sqlalchemy_url(database.url))
        return before, after or head_revision()


def doctor(*, as_json: Json = False) -> None:
    """Look at settings, database, migrations, Horizon, clock and webhooks; say what to do.

    Exits with 1 if anything is wrong.
    """
    try:
        findings = run(examine(load_settings()))
    except ConfigError as error:
        findings = [Finding("settings", well=False, message=p) for p in error.problems]
    else:
        findings.insert(0, Finding("settings", well=True, message="readable"))
    well = all(finding.well for finding in findings)
    if as_json:
        emit_json({"well": well, "findings": [finding.document() for finding in findings]})
    else:
        show_table(
            "paywatch doctor",
            ("part", "", "what was found", "what to do"),
            [(f.part, "ok" if f.well else "WRONG", f.message, f.remedy) for f in findings],
        )
    if not well:
        raise typer.Exit(1)
