-- Moves the copies into place and drops the old tables. What is read is from now on a view over the loads (see schema.sql).

rename table if exists user_activity to user_activity_version_1;
rename table if exists user_activity_copy to user_activity_loads;
rename table if exists dimension_activity to dimension_activity_version_1;
rename table if exists dimension_activity_copy to dimension_activity_loads;
rename table if exists daily_metrics to daily_metrics_version_1;
rename table if exists daily_metrics_copy to daily_metrics_loads;
rename table if exists publications_copy to publications;

drop table if exists user_activity_version_1;
drop table if exists dimension_activity_version_1;
drop table if exists daily_metrics_version_1;
