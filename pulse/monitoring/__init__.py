"""Monitoring: finds metrics that are out of range, joins them into incidents and writes the alerts about them."""
