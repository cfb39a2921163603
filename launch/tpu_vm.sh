#!/bin/bash
# A Cloud TPU slice of one or many hosts: makes it, installs, trains; each step by itself.
#
#     launch/tpu_vm.sh create  --name=my-tpu --zone=us-east5-a --type=v6e-16
#     launch/tpu_vm.sh install --name=my-tpu --zone=us-east5-a
#     launch/tpu_vm.sh train   --name=my-tpu --zone=us-east5-a -- --workdir=/mnt/shared/runs/base
#     launch/tpu_vm.sh delete  --name=my-tpu --zone=us-east5-a
#
# Needs gcloud with a project. --dry-run prints the command instead of running it. The disks of the
# hosts are their own: each prepares and encodes the data for itself. Checkpoints need a folder that
# all hosts see: mount a bucket (gcsfuse) or Filestore at the same place on each, and name it with
# --workdir.
set -euo pipefail

usage="expected create, install, train or delete, then --name=NAME --zone=ZONE"
step="${1:-}"
shift || true
dry_run=0 name="" zone="" type="v6e-16" version="v2-alpha-tpuv6e"
while (($#)); do
    case "$1" in
        --dry-run) dry_run=1 ;;
        --name=*) name="${1#*=}" ;;
        --zone=*) zone="${1#*=}" ;;
        --type=*) type="${1#*=}" ;;
        --version=*) version="${1#*=}" ;;
        --) shift && break ;;
        *) echo "tpu_vm.sh: got $1; $usage" >&2 && exit 2 ;;
    esac
    shift
done
if [[ -z "$name" || -z "$zone" ]]; then
    echo "tpu_vm.sh: got no --name or --zone; $usage" >&2
    exit 2
fi

run() {
    if ((dry_run)); then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}
tpu=(gcloud compute tpus tpu-vm)
place=("$name" "--zone=$zone")
everywhere=("${tpu[@]}" ssh "${place[@]}" --worker=all)

case "$step" in
    create)
        run "${tpu[@]}" create "${place[@]}" "--accelerator-type=$type" "--version=$version"
        ;;
    install)
        cd "$(dirname "$0")/.."
        archive="$(mktemp -d)/umair_jax.tar.gz"
        run git archive --format=tar.gz --prefix=umair_jax/ "--output=$archive" HEAD
        run "${tpu[@]}" scp "$archive" "$name:" "--zone=$zone" --worker=all
        # The images bring Python 3.10 (Ubuntu 22.04), which has 3.11 as a package.
        run "${everywhere[@]}" --command="tar xzf umair_jax.tar.gz && cd umair_jax && \
(python3.11 -m venv .venv || (sudo apt-get update && sudo apt-get install -y python3.11-venv && \
python3.11 -m venv .venv)) && .venv/bin/pip install -c constraints.txt -e '.[tpu]'"
        ;;
    train)
        arguments=""
        (($# == 0)) || printf -v arguments '%q ' "$@"
        run "${everywhere[@]}" --command="cd umair_jax && \
.venv/bin/python -m umair_jax.train ${arguments}--config.hosts.cluster=auto"
        ;;
    delete)
        run "${tpu[@]}" delete "${place[@]}" --quiet
        ;;
    *)
        echo "tpu_vm.sh: got ${step:-nothing}; $usage" >&2
        exit 2
        ;;
esac
