"""Stellar's result codes as XDR and by Horizon's names (`internal/codes/main.go`)."""

from typing import Any, Final

from stellar_sdk import xdr

_ARMS: Final[dict[xdr.OperationType, tuple[str, str]]] = {
    xdr.OperationType.CREATE_ACCOUNT: ("create_account_result", "CreateAccountResult"),
    xdr.OperationType.PAYMENT: ("payment_result", "PaymentResult"),
    xdr.OperationType.PATH_PAYMENT_STRICT_RECEIVE: (
        "path_payment_strict_receive_result",
        "PathPaymentStrictReceiveResult",
    ),
    xdr.OperationType.PATH_PAYMENT_STRICT_SEND: (
        "path_payment_strict_send_result",
        "PathPaymentStrictSendResult",
    ),
    xdr.OperationType.ACCOUNT_MERGE: ("account_merge_result", "AccountMergeResult"),
    xdr.OperationType.CHANGE_TRUST: ("change_trust_result", "ChangeTrustResult"),
    xdr.OperationType.MANAGE_DATA: ("manage_data_result", "ManageDataResult"),
    xdr.OperationType.SET_OPTIONS: ("set_options_result", "SetOptionsResult"),
    xdr.OperationType.INVOKE_HOST_FUNCTION: (
        "invoke_host_function_result",
        "InvokeHostFunctionResult",
    ),
}

# Where Horizon's name is not the code's own, less its type's prefix.
_NAMES: Final[dict[str, str]] = {
    "NO_ACCOUNT": "op_no_source_account",
    "ALREADY_EXIST": "op_already_exists",
    "UNDER_DESTMIN": "op_under_dest_min",
    "OVER_SENDMAX": "op_over_source_max",
    "OFFER_CROSS_SELF": "op_cross_self",
    "SEQNUM_TOO_FAR": "op_seq_num_too_far",
    "NAME_NOT_FOUND": "op_data_name_not_found",
    "INVALID_NAME": "op_data_invalid_name",
}


def operation_result(
    kind: xdr.OperationType, code: str = "SUCCESS", **arms: Any
) -> xdr.OperationResult:
    """The result of one operation: `operation_result(PAYMENT, "UNDERFUNDED")`."""
    field, class_name = _ARMS[kind]
    codes = getattr(xdr, f"{class_name}Code")
    result = getattr(xdr, class_name)(codes[f"{kind.name}_{code}"], **arms)
    return xdr.OperationResult(
        xdr.OperationResultCode.opINNER, xdr.OperationResultTr(kind, **{field: result})
    )


def outer_result(code: xdr.OperationResultCode) -> xdr.OperationResult:
    """The result of an operation that was not even tried."""
    return xdr.OperationResult(code)


def inner(result: xdr.OperationResult) -> Any:
    """The part of an operation's result that belongs to its type."""
    if result.tr is None:
        raise ValueError("this operation was not tried, it has no inner result")
    return getattr(result.tr, _ARMS[result.tr.type][0])


def succeeded(result: xdr.OperationResult) -> bool:
    """Whether the operation itself went through (its transaction may still fail)."""
    return result.tr is not None and inner(result).code == 0


def operation_code(result: xdr.OperationResult) -> str:
    """Horizon's name for an operation's result, such as `op_underfunded`."""
    if result.tr is None:
        name = result.code.name.removeprefix("op")
        return _NAMES.get(name, f"op_{name.lower()}")
    name = inner(result).code.name.removeprefix(f"{result.tr.type.name}_")
    # A merge's NO_ACCOUNT is about the destination, unlike the outer code of that name.
    return f"op_{name.lower()}" if name == "NO_ACCOUNT" else _NAMES.get(name, f"op_{name.lower()}")


def tx_code(code: xdr.TransactionResultCode) -> str:
    """Horizon's name for a transaction's result, such as `tx_bad_seq`."""
    if code == xdr.TransactionResultCode.txNO_ACCOUNT:
        return "tx_no_source_account"
    return f"tx_{code.name.removeprefix('tx').lower()}"


def tx_result(
    code: xdr.TransactionResultCode,
    fee_charged: int = 0,
    results: list[xdr.OperationResult] | None = None,
) -> xdr.TransactionResult:
    """The result of a plain transaction."""
    return xdr.TransactionResult(
        xdr.Int64(fee_charged),
        xdr.TransactionResultResult(code, results=results),
        xdr.TransactionResultExt(0),
    )


def fee_bump_result(
    inner_hash: bytes, result: xdr.TransactionResult, fee_charged: int
) -> xdr.TransactionResult:
    """The result of a fee bump, holding the result of the transaction inside it."""
    code = xdr.TransactionResultCode
    ok = result.result.code == code.txSUCCESS
    pair = xdr.InnerTransactionResultPair(
        xdr.Hash(inner_hash),
        xdr.InnerTransactionResult(
            xdr.Int64(0),  # the fee account paid everything
            xdr.InnerTransactionResultResult(result.result.code, results=result.result.results),
            xdr.InnerTransactionResultExt(0),
        ),
    )
    outer = code.txFEE_BUMP_INNER_SUCCESS if ok else code.txFEE_BUMP_INNER_FAILED
    return xdr.TransactionResult(
        xdr.Int64(fee_charged),
        xdr.TransactionResultResult(outer, inner_result_pair=pair),
        xdr.TransactionResultExt(0),
    )


def result_codes(result: xdr.TransactionResult) -> dict[str, Any]:
    """`extras.result_codes` of Horizon's `transaction_failed` problem."""
    codes: dict[str, Any] = {"transaction": tx_code(result.result.code)}
    pair = result.result.inner_result_pair
    results = result.result.results
    if pair is not None:
        codes["inner_transaction"] = tx_code(pair.result.result.code)
        results = pair.result.result.results
    if results:
        codes["operations"] = [operation_code(r) for r in results]
    return codes
