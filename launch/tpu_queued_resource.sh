#!/bin/bash
# Trains on a TPU queued resource, and requests it anew whenever it is preempted.
#
#   NAME=gan ZONE=us-west4-a TYPE=v5litepod-64 VERSION=v2-alpha-tpuv5-lite \
#     launch/tpu_queued_resource.sh setup.sh python -m gan_jax.main --config=CONFIG \
#     --workdir=DIR --distributed=auto
#
# Run it where it can stay, such as a small VM. setup.sh prepares a worker at each boot,
# as root: it installs gan_jax, mounts what DIR needs, and may set variables. The command
# runs in the startup script of the workers, in no ssh session; what it prints is in
# /var/lib/gan_jax/log there. Once it has ended for good, the resource is deleted, and
# this script ends with the command's exit code. OPTIONS, by default --spot, are further
# flags of `gcloud compute tpus queued-resources create`.
set -u
: "${NAME:?}" "${ZONE:?}" "${TYPE:?}" "${VERSION:?}" "${OPTIONS=--spot}"
here=$(dirname "${BASH_SOURCE[0]}")
if [ $# -lt 2 ] || [ ! -r "$1" ]; then
  echo 'tpu_queued_resource.sh: give a setup script and the command to run' >&2
  exit 2
fi

startup_script() {
  echo '#!/bin/bash'
  echo 'mkdir -p /var/lib/gan_jax && cd /var/lib/gan_jax || exit'
  echo 'exec >>log 2>&1 </dev/null; rm -f exit_code'
  echo "cat >restart.sh <<'END_OF_RESTART'"
  cat "$here/restart.sh"
  echo END_OF_RESTART
  cat "$1"
  shift
  printf '\nbash /var/lib/gan_jax/restart.sh'
  printf ' %q' "$@"
  printf '\necho $? >/var/lib/gan_jax/exit_code\n'
}

resource() { # VERB FLAGS...
  local verb=$1
  shift
  gcloud compute tpus queued-resources "$verb" "$NAME" --zone="$ZONE" --quiet "$@" </dev/null
}

startup=$(mktemp)
trap 'rm -f "$startup"' EXIT
startup_script "$@" >"$startup"
refused=0
while true; do
  state=$(resource describe --format='value(state.state)' 2>/dev/null)
  case $state in
    '') # there is none
      if resource create --node-id="$NAME" --accelerator-type="$TYPE" \
        --runtime-version="$VERSION" $OPTIONS \
        --metadata-from-file=startup-script="$startup"; then
        refused=0
      elif [ $((refused += 1)) -ge 5 ]; then
        exit 2 # gcloud has said why
      fi
      ;;
    ACTIVE)
      code=$(timeout 120 gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --quiet \
        --worker=0 --command='cat /var/lib/gan_jax/exit_code' </dev/null 2>/dev/null)
      if [[ $code =~ ^[0-9]+$ && $code -ne 42 && $code -lt 127 ]]; then
        resource delete --force
        exit "$code"
      fi
      ;;
    SUSPENDING | SUSPENDED | FAILED) # preempted, or never provided
      echo "$NAME is $state: requesting it anew" >&2
      resource delete --force
      ;;
  esac
  sleep 60
done
