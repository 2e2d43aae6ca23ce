#!/usr/bin/env bash
# Measure every workload on this machine and write results/bench/. Arguments are handed on: scripts/bench/run.sh w1 repeats=3
set -euo pipefail
cd "$(dirname "$0")/../.."
exec odenet bench out=results/bench "$@"
