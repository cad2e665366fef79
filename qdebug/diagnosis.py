"""Diagnosis: verdict and cause of a layer's error, with evidence and advice."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a layer.

    Attributes:
        verdict: the size of it: ``ok``, ``warn``, ``bad`` or ``unreadable``.
        cause: one word.
        evidence: the figures that show it.
        advice: one step that a person can take.
    """

    verdict: str
    cause: str
    evidence: str
    advice: str


def unreadable(reason: str) -> Diagnosis:
    """The diagnosis of a layer whose arrays do not make a pair."""
    return Diagnosis(
        verdict="unreadable",
        cause="unreadable",
        evidence=reason,
        advice="write the layer's arrays again; docs/pair-file.md has the format",
    )
