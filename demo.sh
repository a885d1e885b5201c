#!/bin/sh
# Starts the service on a free port, generates demo-1.png to demo-3.png and stops the service.
# ./demo.sh [FILE]
# It has a data folder of its own (data/demo), so it can run beside another service.
set -eu
cd "$(dirname "$(readlink -f "$0")")"
image=${1:-$PWD/demo.png}
PATH=$PWD/.venv/bin:$PATH
SDE_DATA_DIR=${SDE_DATA_DIR:-data}/demo
export SDE_DATA_DIR
# An invalid setting is reported here, before anything is started.
python -m gpu_worker --check
run_port=${SDE_PORT:-9090}
SDE_PORT=$(python - "${SDE_PORT:-9090}" <<'PY'
import socket, sys
value = sys.argv[1]
if not (value.isascii() and value.isdecimal() and 0 < int(value) < 65536):
    sys.exit(f"SDE_PORT={value!r}: a port is a whole number from 1 to 65535")
for port in (int(value), 0):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            print(f"Port {port} is in use, so the demo takes another one.", file=sys.stderr)
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

echo "The service is starting at $SDE_URL ..."
if ! sde status --wait 120; then
    echo "The service did not become available. Its logs ($SDE_DATA_DIR/run) end with:" >&2
    tail -n 5 "$SDE_DATA_DIR/run.log" "$SDE_DATA_DIR"/run/*.log >&2
    exit 1
fi
stem=${image%.png}
number=0
for prompt in "a rocket on a blue background" "a pizza on a yellow background" \
    "a strawberry on a green background"; do
    number=$((number + 1))
    sde generate "$prompt" --steps 20 --seed 7 --force -o "$stem-$number.png"
done
echo
echo "The images are $stem-1.png to $stem-$number.png."
echo "To keep the service running, use: make run"
echo "Then open its page in a browser, http://127.0.0.1:$run_port/ (or use: .venv/bin/sde open)."
echo "In another terminal, use: .venv/bin/sde generate \"...\""
