"""Every claim the project makes with a number, one folder each. Not in the wheel; run from the repository root."""
