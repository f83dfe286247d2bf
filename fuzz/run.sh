#!/usr/bin/env bash
# Builds every target and fuzzes one after another, each for so many seconds, from its seeds, its regressions and what earlier
# runs have found. Stops at the first crash.
set -euo pipefail
cd "$(dirname "$0")"
seconds=$1

# No sanitizer: the code is safe Rust, and the toolchain stays the stable one.
cargo fuzz build --sanitizer none
programs=target/$(rustc -vV | sed -n 's/^host: //p')/release

total=0
TIMEFORMAT='%R %U %S'
printf '%-15s %10s %9s %9s %7s\n' target runs seconds CPU edges
for target in fuzz_targets/*.rs; do
  target=$(basename "$target" .rs)
  found=artifacts/$target
  mkdir -p "$found" "corpus/$target" "regressions/$target"
  if ! { time "$programs/$target" -dict=dictionary.txt -max_total_time="$seconds" -timeout=10 -print_final_stats=1 \
    -artifact_prefix="$found/" "corpus/$target" "seeds/$target" "regressions/$target" >"$found/log" 2>&1; } 2>"$found/time"; then
    grep -a -A 1 -E 'panicked at|ERROR: libFuzzer|Test unit written' "$found/log" || tail -n 20 "$found/log"
    exit 1
  fi
  read -r elapsed user system <"$found/time"
  cpu=$(awk "BEGIN { print $user + $system }")
  total=$(awk "BEGIN { print $total + $cpu }")
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$found/log")
  edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$found/log" | tail -n 1)
  printf '%-15s %10s %9s %9s %7s\n' "$target" "$runs" "$elapsed" "$cpu" "$edges"
done
echo "CPU seconds: $total"
