"""What the doctor says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # do not train on this
    WARNING = "warning"  # look at this


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One flaw.

    Attributes:
        check: Name of the check that found it.
        task_id: The task, or the worst of those that show it.
        severity: How bad it is.
        message: One line for people; may quote hostile text, escaped.
    """

    check: str
    task_id: str
    severity: Severity
    message: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The result of an examination.

    Attributes:
        n_tasks: How many tasks there are.
        n_references: How many of them have a reference solution; most checks need one.
        findings: By check, in the order they ran; the worst task first.
        gains: By hack probe, how much it raises the return of a failing program on average.
    """

    n_tasks: int
    n_references: int
    findings: Mapping[str, tuple[Finding, ...]]
    gains: Mapping[str, float]

    def count(self, severity: Severity) -> int:
        """How many findings are that bad."""
        return sum(finding.severity is severity for found in self.findings.values() for finding in found)

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as a JSON-able record, every finding included."""
        return {
            "n_tasks": self.n_tasks,
            "n_references": self.n_references,
            "n_errors": self.count(Severity.ERROR),
            "n_warnings": self.count(Severity.WARNING),
            "checks": {name: len(found) for name, found in self.findings.items()},
            "findings": [asdict(finding) for found in self.findings.values() for finding in found],
            "gains": dict(self.gains),
        }
