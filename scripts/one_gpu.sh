#!/usr/bin/env bash
# What only a GPU can tell, in nine minutes on the first one at hand:
#   scripts/one_gpu.sh OUT [key=value ...]       for example data.root=FOLDER; --dry-run lists the parts
# The GPU's tests, the speed beside other libraries (eager, and compiled with CUDA graphs), then the cells of table 1 at
# the paper's length, one after another. Each part has a limit, all of it lies under OUT, and nothing is done twice: the
# same command goes on where it was, the cells within their epoch. Exit 1 where a test or a bench failed.
set -euo pipefail
TOTAL=520 # seconds, of which the cells have what the other parts leave

out=${1:?usage: scripts/one_gpu.sh OUT [--dry-run] [key=value ...]}
shift
dry=false
words=()
for word in "$@"; do
  if [ "$word" = --dry-run ]; then dry=true; else words+=("$word"); fi
done
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
failed=0

# part NAME SECONDS COMMAND...: run it once, its output in OUT/NAME.txt; a limit that was reached leaves it to be done.
part() {
  local name=$1 limit=$2 code=0
  shift 2
  local left=$((TOTAL - SECONDS))
  if [ "$limit" = rest ] || [ "$limit" -gt "$left" ]; then limit=$left; fi
  if $dry; then
    echo "$name, at most $limit s: $*"
    return
  fi
  if [ -e "$out/$name.done" ]; then
    echo "$name: done before"
    return
  fi
  if [ "$limit" -lt 10 ]; then
    echo "$name: no time left"
    return
  fi
  timeout --signal=TERM --kill-after=15 "$limit" "$@" >>"$out/$name.txt" 2>&1 || code=$?
  case $code in
  0) touch "$out/$name.done" && echo "$name: done after $SECONDS s" ;;
  124 | 137 | 143) echo "$name: not done when its time was up; the same command goes on" ;;
  *)
    failed=1
    echo "$name: exit code $code, see $out/$name.txt"
    ;;
  esac
}

if ! $dry; then
  python -c 'import torch; raise SystemExit(0 if torch.cuda.is_available() else "torch finds no CUDA device here")'
  mkdir -p "$out"
  out=$(cd "$out" && pwd)
  cd "$out" # runs/ and results/ of the cells
fi
export TORCHINDUCTOR_CACHE_DIR="$out/kernels" # compiled once
part machine 20 odenet info
part tests 100 python -m pytest -m gpu -p no:cacheprovider --rootdir "$checkout" -c "$checkout/pyproject.toml" "$checkout/tests"
for limited in w1=90 train=60 w2=40 w3=60 w4=60; do
  workload=${limited%=*}
  part "bench-$workload" "${limited#*=}" odenet bench "$workload" device=cuda repeats=5 out="$out/bench"
done
part cells rest odenet reproduce table1 --preset paper --out "$out/results" device=cuda "${words[@]+"${words[@]}"}"
exit $failed
