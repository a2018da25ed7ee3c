"""django-polaris's `watch_transactions`: run by the Python of its own environment.

`python polaris_watch.py prepare DATABASE ACCOUNT ASSET COUNT` makes its tables, one asset, and a
withdrawal that waits for each payment. `watch DATABASE HORIZON PASSPHRASE COUNT` runs its command
as it is, and prints how many seconds lie between the first transaction that it has marked and the
COUNTth. ACCOUNT is the secret seed of the account that is paid, as it is kept in its asset.

Its best legal setting, with one more argument, for `watch` the account's address: that comes from a
custody integration, which is its documented way to keep no seed in the database, so that the seed
is not decrypted for each payment (100,000 rounds of PBKDF2); and the columns that it looks for have
an index, which its migrations do not make. Nothing of its code is changed, and each save is a
transaction of its own.
"""

import os
import sys
import time
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.models.signals import post_save
from psycopg.conninfo import conninfo_to_dict
from stellar_sdk import Keypair

INDEX = """
CREATE INDEX ON polaris_transaction (receiving_anchor_account, memo)"""
APPS = ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")


def configure(database: str, horizon: str, passphrase: str) -> None:
    """Configure Django and polaris, by what their manuals ask for and nothing else."""
    named = conninfo_to_dict(database)
    os.environ |= {
        "ACTIVE_SEPS": "sep-1,sep-6",
        "HOST_URL": "http://localhost:8000",
        "LOCAL_MODE": "True",
        "HORIZON_URI": horizon,
        "STELLAR_NETWORK_PASSPHRASE": passphrase,
    }
    settings.configure(
        DEBUG=False,
        SECRET_KEY="a key of the benchmark",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[*(f"django.contrib.{app}" for app in APPS), "corsheaders", "polaris"],
        MIDDLEWARE=["corsheaders.middleware.CorsMiddleware"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": named["dbname"],
                "USER": named["user"],
                "HOST": named["host"],
            }
        },
    )
    django.setup()


def prepare(seed: str, asset: str, count: int, *, best: bool) -> None:
    """Make the tables, the asset, and a withdrawal for each payment, by their memos 1 to COUNT."""
    from polaris.models import Asset, Transaction  # noqa: PLC0415 - Django must be set up before

    call_command("migrate", verbosity=0)
    code, issuer = asset.split(":")
    kept = None if best else seed
    paid = Asset.objects.create(
        code=code, issuer=issuer, sep6_enabled=True, significant_decimals=7, distribution_seed=kept
    )
    account = Keypair.from_secret(seed).public_key
    waiting = [
        Transaction(
            asset=paid,
            kind=Transaction.KIND.withdrawal,
            protocol=Transaction.PROTOCOL.sep6,
            status=Transaction.STATUS.pending_user_transfer_start,
            memo=str(number),
            memo_type="id",
            receiving_anchor_account=account,
            amount_expected="10",
        )
        for number in range(1, count + 1)
    ]
    Transaction.objects.bulk_create(waiting, batch_size=500)
    with connection.cursor() as cursor:
        if best:
            cursor.execute(INDEX)
        cursor.execute("VACUUM ANALYZE")


def watch(count: int, account: str | None) -> None:
    """Run the command until COUNT transactions are marked; it never ends by itself."""
    from polaris.integrations import (  # noqa: PLC0415 - as above
        CustodyIntegration,
        register_integrations,
    )
    from polaris.models import Transaction  # noqa: PLC0415 - as above

    marked_at: list[float] = []

    def mark(instance: Any, **_: object) -> None:
        if instance.status == Transaction.STATUS.pending_anchor:
            marked_at.append(time.perf_counter())  # committed: each save is by itself
        if len(marked_at) == count:
            sys.stdout.write(f"{marked_at[-1] - marked_at[0]}\n")
            sys.stdout.flush()
            os._exit(0)

    post_save.connect(mark, sender=Transaction, weak=False)
    if account is not None:
        custody = type("Known", (CustodyIntegration,), {})()
        custody.get_distribution_account = lambda asset: account  # noqa: ARG005 - its signature
        register_integrations(custody=custody)
    call_command("watch_transactions")


if __name__ == "__main__":
    verb, url, *rest = sys.argv[1:]
    if verb == "prepare":
        configure(url, "http://localhost", "")
        prepare(rest[0], rest[1], int(rest[2]), best=len(rest) > 3)
    else:
        configure(url, rest[0], rest[1])
        watch(int(rest[2]), rest[3] if len(rest) > 3 else None)
