"""Fuzz pair files (.npz): directory, headers, parameters and data, as every command reads them."""

from fuzz.target import fuzz, mutate_member, report_on

if __name__ == "__main__":
    fuzz(report_on, ".npz", mutate_member)
