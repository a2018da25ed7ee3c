"""A simulated Stellar network: a ledger, Horizon, wallets, a merchant, and faults on a seed.

The usual entrance is `SimNetwork`; `Merchant` receives webhooks beside it.
"""

from paywatch.sim.faults import Fault, FaultRule, Faults, FaultSettings, Moment
from paywatch.sim.horizon import HorizonServer, HorizonSettings, SeenRequest
from paywatch.sim.ledger import Ledger, TxRefused
from paywatch.sim.ledger import Settings as LedgerSettings
from paywatch.sim.merchant import Answer, Merchant, ReceivedWebhook
from paywatch.sim.network import NetworkSettings, SimNetwork, serve
from paywatch.sim.ratelimit import Quota
from paywatch.sim.remote import RemoteNetwork, RemoteRefusal
from paywatch.sim.streaming import StreamSettings
from paywatch.sim.wallet import Wallet, asset_of, keypair_of

__all__ = [
    "Answer",
    "Fault",
    "FaultRule",
    "FaultSettings",
    "Faults",
    "HorizonServer",
    "HorizonSettings",
    "Ledger",
    "LedgerSettings",
    "Merchant",
    "Moment",
    "NetworkSettings",
    "Quota",
    "ReceivedWebhook",
    "RemoteNetwork",
    "RemoteRefusal",
    "SeenRequest",
    "SimNetwork",
    "StreamSettings",
    "TxRefused",
    "Wallet",
    "asset_of",
    "keypair_of",
    "serve",
]
