"""Everything a user may write. No torch, no Hydra."""
