#!/bin/bash
# A machine with GPUs, or several: the same line on each of them, once.
#
#     launch/gpu.sh --config=configs/paper.py                            # all GPUs of this machine
#     launch/gpu.sh --hosts=2 --host=0 --coordinator=10.0.0.1:9876 -- --workdir=/shared/runs/base
#     launch/gpu.sh --hosts=2 --host=1 --coordinator=10.0.0.1:9876 -- --workdir=/shared/runs/base
#
# On each machine first: make train, then .venv/bin/pip install -e ".[cuda]". The folder of --workdir
# must be seen by all.
#
# One process a host drives all of its GPUs. The coordinator is the address of host 0 in the
# network, with a port that is free there. --dry-run first prints the command.
set -euo pipefail

dry_run=0 hosts=1 host=0 coordinator=""
while (($#)); do
    case "$1" in
        --dry-run) dry_run=1 ;;
        --hosts=*) hosts="${1#*=}" ;;
        --host=*) host="${1#*=}" ;;
        --coordinator=*) coordinator="${1#*=}" ;;
        --) shift && break ;;
        *) break ;;
    esac
    shift
done
if ((hosts > 1)) && [[ -z "$coordinator" ]]; then
    echo "gpu.sh: --hosts=$hosts needs --coordinator=ADDRESS:PORT of host 0" >&2
    exit 2
fi
cd "$(dirname "$0")/.."

command=(.venv/bin/python -m umair_jax.train "$@")
if ((hosts > 1)); then
    command+=(
        "--config.hosts.coordinator=$coordinator"
        "--config.hosts.processes=$hosts"
        "--config.hosts.process=$host"
    )
fi
if ((dry_run)); then
    printf '%q ' "${command[@]}"
    echo
    exit
fi
# JAX's own: most of the memory is taken at once, in place of piece by piece.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
exec "${command[@]}"
