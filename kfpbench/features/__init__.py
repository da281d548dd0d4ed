"""Feature extractors, in whose space distances are measured."""
