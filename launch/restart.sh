#!/bin/bash
# Runs a command again while its exit code asks for it: 42 and 127 to 255.
#
#   launch/restart.sh python -m gan_jax.main --config=CONFIG --workdir=DIR
#
# SIGTERM and Ctrl-C are passed on to the command and end the loop. To mpirun they are
# passed on as SIGUSR2, which it hands to its processes, and which saves and stops as
# SIGTERM does: at SIGTERM itself it would kill them within a second.
if ! command -v "$1" >/dev/null; then
  echo "restart.sh: '$1' is no command; give one, such as python -m gan_jax.main ..." >&2
  exit 2
fi
set -m # the command gets a signal from this script alone, not from the terminal too
stopping=''
forward() {
  local signal=$1
  case ${command##*/} in mpirun | mpiexec) signal=USR2 ;; esac
  stopping=1 signalled=1
  kill "-$signal" "$child" 2>/dev/null
}
command=$1
trap 'forward TERM' TERM
trap 'forward INT' INT
while true; do
  "$@" &
  child=$!
  signalled=1
  while [ -n "$signalled" ]; do # a signal ends `wait` before the command ends
    signalled=''
    wait "$child"
    code=$?
  done
  [ $code -eq 42 ] || [ $code -ge 127 ] || exit $code
  [ -z "$stopping" ] || exit $code
  sleep 10
  [ -z "$stopping" ] || exit $code
done
