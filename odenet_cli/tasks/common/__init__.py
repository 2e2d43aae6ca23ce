"""Shared parts of tasks."""
