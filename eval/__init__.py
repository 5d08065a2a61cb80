"""Judging pictures and sending out what passed."""
