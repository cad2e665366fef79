"""Mutation testing: faults planted in qdebug on purpose, and the tests that notice them."""
