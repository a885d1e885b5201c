#!/bin/sh
# Starts the gateway and the workers under supervisord, in the foreground. Ctrl-C stops them.
# It sets the variables that supervisord.conf needs. The processes read every other setting.
set -eu
cd "$(dirname "$(readlink -f "$0")")"
case "${SDE_DATA_DIR:-data}" in
    /*) SDE_DATA_DIR=${SDE_DATA_DIR} ;;
    *) SDE_DATA_DIR=$PWD/${SDE_DATA_DIR:-data} ;;
esac
export SDE_DATA_DIR
export SDE_GPUS="${SDE_GPUS:-1}"
SDE_PYTHON=${SDE_PYTHON:-$PWD/.venv/bin/python}

case "$PWD$SDE_DATA_DIR$SDE_PYTHON" in
    *[%\"]*)
        echo "run.sh: supervisord cannot have a % or a double quote in a path: $PWD $SDE_DATA_DIR $SDE_PYTHON" >&2
        exit 78
        ;;
esac
# What would keep a process from starting is reported here instead of in a log file.
"$SDE_PYTHON" -m gpu_worker --check
answer=$("$SDE_PYTHON" -m gateway --check --make-key)
umask 077
# A reason why a model cannot be loaded is shown here too. This process ends with supervisord, which
# keeps the process id of this script.
"$SDE_PYTHON" -m gpu_worker.control.load_error "$SDE_DATA_DIR/run" &
# The first line is the address, and the others explain its keys.
url=$(printf '%s\n' "$answer" | head -n 1)
# The moment from which on it works is shown too.
"$SDE_PYTHON" -m gpu_worker.control.ready_note "$SDE_DATA_DIR/run" "$url" &
echo "The service will be at $url (logs: $SDE_DATA_DIR/run/)."
printf '%s\n' "$answer" | tail -n +2
export SDE_PYTHON
exec "$SDE_PYTHON" -m supervisor.supervisord -n -c supervisord.conf
