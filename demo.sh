#!/bin/sh
# From nothing to a picture: starts the service on a free port, makes demo.png, stops everything.
# ./demo.sh [FILE]
# Its data are its own (data/demo), so it runs beside a service that is already there.
set -eu
cd "$(dirname "$0")"
picture=${1:-$PWD/demo.png}
PATH=$PWD/.venv/bin:$PATH
SDE_DATA_DIR=${SDE_DATA_DIR:-data}/demo
export SDE_DATA_DIR
# What is wrong with a setting is said here, before anything is started or waited for.
python -m gpu_worker --check
SDE_PORT=$(python - "${SDE_PORT:-9090}" <<'PY'
import socket, sys
wanted = sys.argv[1]
if not (wanted.isascii() and wanted.isdecimal() and 0 < int(wanted) < 65536):
    sys.exit(f"SDE_PORT={wanted!r}: no port, which is an integer from 1 to 65535")
for port in (int(wanted), 0):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            print(f"port {port} is taken, the demo uses another", file=sys.stderr)
            continue
        print(probe.getsockname()[1])
        break
PY
)
SDE_URL=http://127.0.0.1:$SDE_PORT
SDE_HOST=127.0.0.1
export SDE_PORT SDE_URL SDE_HOST
python -m gateway --check >/dev/null

./run.sh >"$SDE_DATA_DIR/run.log" 2>&1 &
service=$!
stop() {
    kill "$service" 2>/dev/null || true
    wait "$service" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT TERM

echo "starting the service at $SDE_URL ..."
if ! sde status --wait 120; then
    echo "the service did not become available; the end of its logs ($SDE_DATA_DIR/run):" >&2
    tail -n 5 "$SDE_DATA_DIR/run.log" "$SDE_DATA_DIR"/run/*.log >&2
    exit 1
fi
sde generate "a large red circle on a blue background" --steps 20 --seed 7 -o "$picture"
echo
echo "the picture is $picture"
echo "to keep the service running: make run    (then, in another terminal: .venv/bin/sde generate \"...\")"
