"""What an audit compared, and what it found."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from paywatch.domain.audit import Comparison, Finding, Kind
from paywatch.service.settle import Settled

SHOWN: Final = 100  # findings of one audit that are listed


@dataclass(frozen=True, slots=True)
class AuditReport:
    """One audit.

    Attributes:
        accounts: how many were compared.
        read: operations.
        settled: credits that were missing and are settled now.
        quarantined: missing records that could not be read, and are in quarantine now.
        findings: the first SHOWN of those counted.
        unaudited: why a reading could not be finished, by its label.
    """

    accounts: int = 0
    read: int = 0
    missing: int = 0
    settled: int = 0
    quarantined: int = 0
    extra: int = 0
    different: int = 0
    findings: tuple[Finding, ...] = ()
    unaudited: Mapping[str, str] = field(default_factory=dict)

    @property
    def mismatches(self) -> int:
        """How many credits are not what the ledger says: an alarm."""
        return self.extra + self.different

    @property
    def healthy(self) -> bool:
        """Whether nothing is left that needs a person."""
        return not (self.mismatches or self.unaudited)

    def document(self) -> dict[str, Any]:
        """Describe it as a JSON document."""
        return {
            "healthy": self.healthy,
            "accounts": self.accounts,
            "read": self.read,
            "missing": self.missing,
            "settled": self.settled,
            "quarantined": self.quarantined,
            "extra": self.extra,
            "different": self.different,
            "findings": [
                {
                    "kind": found.kind,
                    "account": found.account,
                    "operation_id": str(found.operation_id),
                    "change_index": found.change_index,
                    "problem": found.problem,
                }
                for found in self.findings
            ],
            "unaudited": dict(self.unaudited),
        }

    def with_page(self, read: int, found: Comparison, settled: Settled) -> "AuditReport":
        """The report with one more page in it."""
        kinds = [finding.kind for finding in found.findings]
        return replace(
            self,
            read=self.read + read,
            missing=self.missing + kinds.count(Kind.MISSING),
            settled=self.settled + len(settled.outcomes),
            quarantined=self.quarantined + len(settled.quarantined),
            extra=self.extra + kinds.count(Kind.EXTRA),
            different=self.different + kinds.count(Kind.DIFFERENT),
            findings=(*self.findings, *found.findings)[:SHOWN],
        )
