"""Fuzz saved reports (.json)."""

from fuzz.target import fuzz, report_on

if __name__ == "__main__":
    fuzz(report_on, ".json")
