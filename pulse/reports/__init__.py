"""Reports: their texts and charts, and whether every place that shows a number shows the same one."""
