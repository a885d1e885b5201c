#!/bin/sh
# Starts gateway and workers under supervisord, in the foreground; Ctrl-C stops them.
# Gives supervisord.conf the variables it needs; every other setting is read by the processes.
set -eu
cd "$(dirname "$0")"
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
# What keeps it from starting is said here, with its sentence, instead of in a log file.
"$SDE_PYTHON" -m gpu_worker --check
url=$("$SDE_PYTHON" -m gateway --check)
umask 077
echo "the service will be at $url (logs: $SDE_DATA_DIR/run/)"
export SDE_PYTHON
exec "$SDE_PYTHON" -m supervisor.supervisord -n -c supervisord.conf
