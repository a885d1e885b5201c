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

# A wrong setting ends here, with its sentence, instead of in a log file.
"$SDE_PYTHON" -m gateway --check
"$SDE_PYTHON" -m gpu_worker --check
umask 077
mkdir -p "$SDE_DATA_DIR/run"
echo "the service will be at http://${SDE_HOST:-127.0.0.1}:${SDE_PORT:-9090} (logs: $SDE_DATA_DIR/run/)"
export SDE_PYTHON
exec "$SDE_PYTHON" -m supervisor.supervisord -n -c supervisord.conf
