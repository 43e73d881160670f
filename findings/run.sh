#!/usr/bin/env bash
# Runs the findings, all of them or those that are named, and prints for each "pass" if the
# behaviour is as its head describes, "changed" if it is not. Ends with 1 if any has changed.
#
#     bash findings/run.sh
#     bash findings/run.sh mlx-float64-exp polars-permuted-windows.sh
#     PYTHON=python3.12 bash findings/run.sh
set -uo pipefail
cd "$(dirname "$0")"

names=("$@")
[ ${#names[@]} -gt 0 ] || names=(*.sh)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
for name in "${names[@]}"; do
  script=$(basename "$name" .sh).sh
  [ "$script" != run.sh ] || continue
  if [ ! -f "$script" ]; then
    echo "unknown  $script"
    status=2
  elif bash "$script" >"$log" 2>&1; then
    echo "pass     $script"
  else
    echo "changed  $script"
    tail -n 5 "$log" | sed 's/^/         /'
    [ "$status" -ne 0 ] || status=1
  fi
done
exit "$status"
