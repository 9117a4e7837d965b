"""Reports: their texts and charts, and whether a number is the same wherever it is shown."""
