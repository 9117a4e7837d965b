"""Tests of Superset and Redash, each real where a package registry has it. The tests of this folder share servers."""
