"""Judging a lot: verdicts on pictures, rules for the lot, and the one value that holds all of it."""
