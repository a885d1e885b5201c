#!/bin/sh
# Runs `python -m bench.gpu` with the arguments that it gets, after it has set up what is missing.
# A Python that has torch with CUDA already keeps its torch. A bare machine gets a new environment.
# PYTHON names the Python to begin with. WHEELS names a folder of wheels for a machine without network.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
PYTHON=${PYTHON:-python3}
VENV=.venv-gpu

case " $* " in
    *" --make-believe "*) needs_card=no ;;
    *) needs_card=yes ;;
esac

# Without a card that is needed, a Python with another torch is of no use.
sees_a_card() {
    [ "$needs_card" = no ] || "$1" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null
}

lacks() {
    "$1" -m bench.gpu --missing || true
}

install() {
    if [ -n "${WHEELS:-}" ]; then
        set -- --no-index --find-links "$WHEELS" "$@"
    fi
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# A new environment. A present torch that sees a card stays, and the new environment sees it too.
make_environment() {
    "$PYTHON" -m venv "$VENV"
    cp constraints.txt "$VENV/constraints.txt"
    if [ "$needs_card" = yes ] && sees_a_card "$PYTHON"; then
        echo "bench/gpu.sh: adding to the torch of $PYTHON: $(lacks "$PYTHON")" >&2
        present=$("$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])')
        own=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        echo "$present" >"$own/present.pth"
        version=$("$PYTHON" -c 'import torch; print(torch.__version__)')
        sed "s/^torch==.*/torch==$version/" constraints.txt >"$VENV/constraints.txt"
    else
        echo "bench/gpu.sh: no Python here has a torch that sees a card; installing into $VENV" >&2
    fi
    # The words of the requirements are arguments.
    # shellcheck disable=SC2046
    install -c "$VENV/constraints.txt" torch $("$PYTHON" -m bench.gpu --requirements)
    # spandrel comes without its torchvision, which ESRGANs do not need.
    install -c "$VENV/constraints.txt" --no-deps spandrel
}

for python in "$VENV/bin/python" .venv/bin/python "$PYTHON"; do
    command -v "$python" >/dev/null || continue
    if sees_a_card "$python" && [ -z "$(lacks "$python")" ]; then
        exec "$python" -m bench.gpu "$@"
    fi
done
make_environment
exec "$VENV/bin/python" -m bench.gpu "$@"
