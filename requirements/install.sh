#!/usr/bin/env bash
# Makes .venv from a lock: requirements/install.sh cpu|gpu. Uses uv; where there is none (or an old one), uv is
# put into .cache/uv, so that the Python it is called with ($PYTHON, else python3) stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-cpu}
python=${PYTHON:-python3}
lock=requirements/$kind.txt
export UV_PYTHON_DOWNLOADS=never

fail() { echo "error: $*" >&2; exit 1; }

[ -f "$lock" ] || fail "no lock $lock; expected the kind cpu or gpu, got $kind"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
  fail "$python does not run; name a Python 3.11 or 3.12, as in: make setup PYTHON=python3.11"
case $version in
  3.11 | 3.12) ;;
  *) fail "$python is Python $version; name a Python 3.11 or 3.12, as in: make setup PYTHON=python3.11" ;;
esac

uv=uv
if ! uv pip sync --help 2>/dev/null | grep -q -e --torch-backend; then
  uv=.cache/uv/bin/uv
  if [ ! -x "$uv" ]; then
    echo "Installing uv, which installs the rest, into .cache/uv"
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .cache/uv uv ||
      fail "found no uv and could not install it with pip; install uv and run make setup again"
  fi
fi

# PyTorch for a CPU lies in $PIP_FIND_LINKS where that is set, elsewhere on PyTorch's own index.
links=()
if [ -n "${PIP_FIND_LINKS:-}" ]; then
  for place in $PIP_FIND_LINKS; do links+=(--find-links "$place"); done
elif [ "$kind" = cpu ]; then
  links=(--torch-backend cpu)
fi

echo "Installing the $(grep -c '==' "$lock") packages of $lock into .venv (Python $version); minutes if not cached"
rm -f .venv/.ready-*
if [ "$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != "$version" ]; then
  "$uv" venv --quiet --clear --python "$python" .venv
fi
"$uv" pip sync --quiet --python .venv/bin/python ${links[@]+"${links[@]}"} "$lock"
"$uv" pip install --quiet --python .venv/bin/python --no-deps --editable .
touch ".venv/.ready-$kind"
