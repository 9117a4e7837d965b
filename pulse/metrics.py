"""What the tables of days count, and by what: the list that notebooks, checks and comparisons share."""

DIMENSIONS = ("os", "gender", "age")
"""The user's attributes by which `dimension_activity` splits a day."""
