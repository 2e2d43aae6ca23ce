"""The configuration that a user writes: schema, presets, checks and what keys imply. Without torch and Hydra."""
