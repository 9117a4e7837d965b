"""Superset and Redash: real, where a package registry has them. The servers below are shared by the folder's tests."""
