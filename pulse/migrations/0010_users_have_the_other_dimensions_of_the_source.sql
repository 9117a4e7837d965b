-- Users have the dimensions that a source may have besides os, gender and age. Users of days that are already published are
-- unknown in them.

alter table user_activity_loads
add column if not exists country LowCardinality(String) default 'unknown' after age,
add column if not exists city LowCardinality(String) default 'unknown' after country,
add column if not exists source LowCardinality(String) default 'unknown' after city,
add column if not exists exp_group LowCardinality(String) default 'unknown' after source;

alter table user_activity_loads
comment column country 'like os; unknown if the source has none',
comment column city 'like country',
comment column source 'like country',
comment column exp_group 'like country';

alter table dimension_activity_loads
comment column dimension 'os, gender or age; country, city, source or exp_group if the source has it';

alter table dimension_metrics_loads
comment column dimension 'os, gender or age; country, city, source or exp_group if the source has it';
