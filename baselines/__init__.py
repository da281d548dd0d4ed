"""Baseline samplers, installed as kfpbench_baselines and registered as anyone's plugins are."""
