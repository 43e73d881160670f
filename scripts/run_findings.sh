#!/usr/bin/env bash
# Runs the findings, all of them or those that are named, and prints for each "pass" if the
# behaviour is as its head describes, "changed" if it is not. Ends with 1 if any has changed.
#
#     bash scripts/run_findings.sh
#     bash scripts/run_findings.sh mlx-float64-exp polars-permuted-windows.sh
#     PYTHON=python3.12 bash scripts/run_findings.sh
set -uo pipefail  # not -e: a finding that has changed is no reason to stop
cd "$(dirname "$0")/../findings"

names=("$@")
[ ${#names[@]} -gt 0 ] || names=(*.sh)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
for name in "${names[@]}"; do
  script=$(basename "$name" .sh).sh
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
