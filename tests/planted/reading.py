"""Wrong changes to how the ledger is read."""

from typing import Final

from planted.bug import Bug

RECORDS: Final = "horizon/records.py"

BUGS: Final = (
    Bug(
        "the-stream-moves-the-cursor",
        "horizon/live.py",
        "return Batch(tuple(records), self._confirmed, self._confirmed, None, read)",
        "self._claims.position, after = self._streamed, self._confirmed\n"
        "        return Batch(tuple(records), after, self._streamed, None, read)",
        "What a stream left out is behind the cursor (ADR 0004).",
        "unit/horizon/test_horizon_live_unit.py",
    ),
    Bug(
        "an-empty-page-is-believed",
        "horizon/claims.py",
        "self._empty[0][0] <= now - self._overlap_s:",
        "self._empty[0][0] <= now:",
        "The tip is believed to be read as soon as one page is empty.",
        "unit/horizon/test_horizon_live_unit.py",
    ),
    Bug(
        "the-tip-after-the-page",
        "horizon/source.py",
        "        page = await self._page(account, after, root)\n",
        "        page = await self._page(account, after, root)\n"
        "        if not page.records:\n"
        "            tip = (await self._roots.read(anew=True)).tip\n"
        "            page = replace(page, upto=max(after, tip))\n",
        "An empty page claims a tip that was read after it.",
        "integration/horizon/test_horizon_source.py",
    ),
    Bug(
        "any-network-will-do",
        "horizon/documents.py",
        "if self.passphrase != passphrase:",
        "if not self.passphrase:",
        "A Horizon of another network is believed.",
    ),
    Bug(
        "a-gap-is-skipped",
        "horizon/documents.py",
        "if not is_whole and after < Position.after_ledger(self.elder - 1):",
        "if not is_whole and after < Position(0):",
        "Ledgers that Horizon keeps no more are passed over in silence (lesson 10).",
        "unit/horizon/test_horizon_documents.py",
    ),
    Bug(
        "what-was-sent-is-credited",
        RECORDS,
        '    "path_payment_strict_send": _PAYMENT,\n',
        '    "path_payment_strict_send": _Shape(\n'
        '        "to", _address("from"), _stroops("source_amount"), muxed_id=_muxed("to")\n'
        "    ),\n",
        "A strict-send payment is credited with what the sender gave (lesson 11).",
    ),
    Bug(
        "own-payments-pay",
        RECORDS,
        "        if payer != account:\n",
        "        if payer:\n",
        "What an account pays itself is a credit (lesson 5).",
    ),
    Bug(
        "funding-is-no-payment",
        RECORDS,
        "    if kind in _SHAPES:\n",
        '    if kind == "create_account":\n        return\n    if kind in _SHAPES:\n',
        "The payment that makes an account is not seen.",
    ),
    Bug(
        "one-change-per-call",
        RECORDS,
        "yield from _move(index, _CHANGES[kind], change, watched)\n",
        "yield from _move(index, _CHANGES[kind], change, watched)\n            return\n",
        "Of a contract call only the first change is read (lesson 11).",
        "unit/horizon/test_horizon_records.py",
    ),
    Bug(
        "the-inner-hash",
        RECORDS,
        "    return outer.pop(), inner\n",
        "    return inner or outer.pop(), None\n",
        "A fee bump's payment bears the hash of the transaction inside.",
    ),
    Bug(
        "the-memo-as-shown",
        "horizon/memos.py",
        'memo = Memo(MemoType.TEXT, read_base64(tx, "memo_bytes"))',
        'memo = Memo(MemoType.TEXT, _encode(read_text(tx, "memo")))',
        "A text memo is what Horizon shows of it, without its NULs and bad bytes.",
    ),
    Bug(
        "joined-by-an-old-claim",
        "service/network.py",
        "since |= dict.fromkeys(watched - since.keys(), batch.after)",
        "since |= dict.fromkeys(watched - since.keys(), claim.position)",
        "An account joins by pages that were read before it was looked for.",
        "integration/service/test_network.py",
    ),
    Bug(
        "joined-before-it-is-passed",
        "store/network.py",
        " AND network.epoch = :epoch AND network.position >= own.position\n",
        " AND network.epoch = :epoch\n",
        "An account joins a stream that is behind its own cursor.",
        "integration/service/test_network.py",
    ),
    Bug(
        "joined-under-another-leader",
        "store/network.py",
        " AND network.epoch = :epoch AND network.position >= own.position\n",
        " AND network.position >= own.position\n",
        "Who leads no more lets accounts join, which the leader does not look for.",
        "integration/service/test_network.py",
    ),
    Bug(
        "the-backfill-reads-too-little",
        "service/backfill.py",
        "        while position != end:\n",
        "        while position == claim.position != end:\n",
        "A backfill ends with its first page.",
        "integration/service/test_backfill.py",
    ),
    Bug(
        "the-cursor-moves-from-anywhere",
        "store/cursors.py",
        " WHERE stream = :stream AND epoch = :epoch AND position = :after",
        " WHERE stream = :stream AND epoch = :epoch",
        "A cursor moves from wherever it stands (lesson 6).",
        "integration/store/test_cursors.py",
    ),
    Bug(
        "the-epoch-is-not-asked",
        "store/cursors.py",
        " WHERE stream = :stream AND epoch = :epoch AND position = :after",
        " WHERE stream = :stream AND position = :after",
        "Whoever led before goes on to settle.",
        "integration/store/test_cursors.py",
    ),
)
