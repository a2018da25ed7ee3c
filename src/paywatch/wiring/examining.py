"""The doctor's round: every part of the settings, each looked at although another is wrong."""

from paywatch.config import Settings, ensure_secret_key
from paywatch.errors import ConfigError, MigrationError, PaywatchError
from paywatch.service.doctor import Finding, examine_endpoints, examine_horizons, examine_server
from paywatch.store.migrate import require_current
from paywatch.webhooks.sealing import Vault
from paywatch.wiring.database import Database, embedded_directory, open_database
from paywatch.wiring.horizons import open_pool
from paywatch.wiring.outside import wall_clock


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything; an embedded database that does not exist yet is not made."""
    directory = embedded_directory(settings)
    if settings.database_url is None and not (directory / "PG_VERSION").exists():
        message = f"an embedded PostgreSQL will be made in {directory}"
        return [Finding("database", well=True, message=message), *await _horizon(settings, None)]
    try:
        is_embedded = settings.database_url is None
        async with open_database(settings, migrated=is_embedded) as database:
            findings = await _database(settings, database)
            # Without its tables a database knows no streams to compare with Horizon.
            migrated = all(f.well for f in findings if f.part == "migrations")
            return findings + await _horizon(settings, database if migrated else None)
    except PaywatchError as error:
        wrong = Finding("database", well=False, message=str(error), remedy="see there")
        return [wrong, *await _horizon(settings, None)]


async def _database(settings: Settings, database: Database) -> list[Finding]:
    findings = await examine_server(database.engine)
    try:
        async with database.engine.connect() as conn:
            await conn.run_sync(require_current)
    except MigrationError as error:
        wrong = Finding("migrations", well=False, message=str(error), remedy="see there")
        return [*findings, wrong]
    findings.append(Finding("migrations", well=True, message="the schema is the program's"))
    try:
        vault = Vault(ensure_secret_key(settings))
    except ConfigError as error:
        remedy = "see there"
        return [*findings, Finding("secret key", well=False, message=str(error), remedy=remedy)]
    return findings + await examine_endpoints(database.engine, vault)


async def _horizon(settings: Settings, database: Database | None) -> list[Finding]:
    engine = None if database is None else database.engine
    async with open_pool(settings) as pool:
        passphrase = settings.network_passphrase
        return await examine_horizons(pool.sources, engine, passphrase, wall_clock())
