#!/usr/bin/env bash
# Every table and figure of the paper, each run a Slurm job of its own with one GPU. From the checkout, on a login node:
#   pip install -e ".[slurm]" && odenet data mnist && scripts/slurm/launcher.sh hydra.launcher.partition=gpu
# It waits for the jobs and then writes results/, so start it in tmux or screen. Stopped, it goes on by the same command.
# Arguments are handed on to odenet; hydra.launcher.* are those of hydra-submitit-launcher.
set -euo pipefail
exec odenet reproduce all --preset paper hydra/launcher=submitit_slurm hydra.launcher.gpus_per_node=1 \
  hydra.launcher.cpus_per_task=4 hydra.launcher.timeout_min=720 "$@"
