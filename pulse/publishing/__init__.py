"""Publishing a day: loads, what they are checked against, and how long rows are kept."""
