"""Which rules a series matches, and why: rules, matching, checks. Never opens pixel data."""
