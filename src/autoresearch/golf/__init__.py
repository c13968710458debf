"""All that is the challenge's own: log formats, audits, canary, limits, what is known to work."""
