"""Pictures of a campaign; needs the extra ``report``."""
