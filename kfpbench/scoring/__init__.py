"""Measure samples from anywhere against a data set."""
