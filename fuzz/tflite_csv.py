"""Fuzz the CSV of TFLite's QuantizationDebugger."""

from fuzz.target import fuzz, report_on

if __name__ == "__main__":
    fuzz(report_on, ".csv")
