"""Histories of other people, replayed policies, simulated campaigns: what strategies are worth."""
