#!/usr/bin/env bash
# Every table and figure of the paper at its full length, on one GPU:
#   scripts/reproduce_paper.sh
# Stopped, it goes on by the same command. Arguments are handed on: --dry-run lists the runs, --seeds 1 is a third of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec odenet reproduce all --preset paper "$@"
