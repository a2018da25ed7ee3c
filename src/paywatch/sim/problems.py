"""Horizon's errors: `application/problem+json`, and the JSON that Go writes."""

import json
from typing import Any, Final

from aiohttp import web

_TYPES: Final = "https://stellar.org/horizon-errors/"


class Problem(Exception):
    """An answer that is no success (`support/render/problem`)."""

    def __init__(
        self, kind: str, title: str, status: int, detail: str, extras: dict[str, Any] | None = None
    ) -> None:
        super().__init__(f"problem: {kind}. full details: {detail}")
        self.kind = kind
        self.title = title
        self.status = status
        self.detail = detail
        self.extras = extras

    def response(self, headers: dict[str, str] | None = None) -> web.Response:
        """The HTTP answer."""
        body: dict[str, Any] = {
            "type": _TYPES + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.extras:
            body["extras"] = self.extras
        return web.Response(
            text=go_json(body),
            status=self.status,
            headers=headers,
            content_type="application/problem+json",
            charset="utf-8",
        )


def go_json(value: Any) -> str:
    """JSON as Go's `encoding/json` writes it: UTF-8, with `<`, `>` and `&` escaped.

    Horizon indents its pages; this does not.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def hal(value: Any, headers: dict[str, str] | None = None) -> web.Response:
    """A successful answer."""
    return web.Response(
        text=go_json(value), headers=headers, content_type="application/hal+json", charset="utf-8"
    )


def bad_request(field: str, reason: str) -> Problem:
    """A parameter that is not usable."""
    return Problem(
        "bad_request",
        "Bad Request",
        400,
        "The request you sent was invalid in some way.",
        {"invalid_field": field, "reason": reason},
    )


def not_found() -> Problem:
    """Nothing there."""
    return Problem(
        "not_found",
        "Resource Missing",
        404,
        "The resource at the url requested was not found.  This usually occurs for one of two "
        "reasons:  The url requested is not valid, or no data in our database could be found "
        "with the parameters provided.",
    )


def before_history() -> Problem:
    """Older than what is kept."""
    return Problem(
        "before_history",
        "Data Requested Is Before Recorded History",
        410,
        "This horizon instance is configured to only track a portion of the stellar network's "
        "latest history. This request is asking for results prior to the recorded history known "
        "to this horizon instance.",
    )


def rate_limited() -> Problem:
    """Too many requests."""
    return Problem(
        "rate_limit_exceeded",
        "Rate Limit Exceeded",
        429,
        "The rate limit for the requesting IP address is over its alloted limit.  The allowed "
        "limit and requests left per time period are communicated to clients via the http "
        "response headers 'X-RateLimit-*' headers.",
    )


def server_error() -> Problem:
    """Something broke inside."""
    return Problem(
        "server_error",
        "Internal Server Error",
        500,
        "An error occurred while processing this request.  This is usually due to a bug within "
        "the server software.  Trying this request again may succeed if the bug is transient. "
        "Otherwise, please contact the system administrator.",
    )


def malformed_tx(envelope_xdr: str) -> Problem:
    """An envelope that cannot be read."""
    return Problem(
        "transaction_malformed",
        "Transaction Malformed",
        400,
        "Horizon could not decode the transaction envelope in this request. A transaction should "
        "be an XDR TransactionEnvelope struct encoded using base64.  The envelope read from this "
        "request is echoed in the `extras.envelope_xdr` field of this response for your "
        "convenience.",
        {"envelope_xdr": envelope_xdr},
    )


def failed_tx(envelope_xdr: str, result_xdr: str, result_codes: dict[str, Any]) -> Problem:
    """A transaction that the network refused, or that failed in its ledger."""
    return Problem(
        "transaction_failed",
        "Transaction Failed",
        400,
        "The transaction failed when submitted to the stellar network. The `extras.result_codes` "
        "field on this response contains further details.  Descriptions of each code can be found "
        "at: https://developers.stellar.org/api/errors/http-status-codes/horizon-specific/"
        "transaction-failed/",
        {"envelope_xdr": envelope_xdr, "result_xdr": result_xdr, "result_codes": result_codes},
    )


def submission_timeout(tx_hash: str, envelope_xdr: str) -> Problem:
    """A transaction that was in no ledger in time; it may yet get into one."""
    return Problem(
        "transaction_submission_timeout",
        "Transaction Submission Timeout",
        504,
        "Your transaction submission request has timed out. This does not necessarily mean the "
        "submission has failed. Before resubmitting, please use the transaction hash provided in "
        "`extras.hash` to poll the GET /transactions endpoint for sometime and check if it was "
        "included in a ledger.",
        {"hash": tx_hash, "envelope_xdr": envelope_xdr},
    )
