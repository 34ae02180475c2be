#!/usr/bin/env bash
# Full fine-tuning of a Llama with 1.1 billion random weights in a memory control group of 3 GiB, every class on NVMe.
#
# Usage: tests/peers/bigger_than_memory.sh NVME_DIR
# Needs: the right to make control groups, 35 GB free in NVME_DIR, minutes. Prints the plan, the steps and the peak.
set -euo pipefail
directory=$(realpath "$1")
cd "$(dirname "$0")/../.."
BIGGER_THAN_MEMORY_DIR=$directory cargo test --release --test tune -- --ignored --exact --nocapture \
  bigger_than_memory::a_model_of_1_1_billion_parameters_trains_in_3_gib
