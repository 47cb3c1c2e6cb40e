"""The folder of a search: plan, log, result, and random competitors."""
