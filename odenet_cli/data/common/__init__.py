"""Shared parts of data sets."""
