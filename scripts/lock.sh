#!/bin/sh
# Write the locks anew: names, versions and hashes for every platform, and not one address.
# Versions that a lock already has are kept; UPGRADE=1 takes the newest.
set -eu
cd "$(dirname "$0")/.."

lock() {
    .venv/bin/uv pip compile --no-config --quiet --universal --python-version 3.11 \
        --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
        ${UPGRADE:+--upgrade} "$@"
}

lock pyproject.toml --output-file requirements/run.txt
lock --group build --output-file requirements/build.txt
lock pyproject.toml --extra azure --constraint requirements/run.txt \
    --output-file requirements/azure.txt
lock pyproject.toml --extra azure --group dev --constraint requirements/azure.txt \
    --constraint requirements/build.txt --output-file requirements/dev.txt
lock --group deploy --output-file requirements/deploy.txt

git ls-files '*package-lock.json' | while read -r file; do
    (
        cd "$(dirname "$file")"
        test -z "${UPGRADE:-}" || rm package-lock.json
        npm install --package-lock-only --ignore-scripts --silent
    )
    .venv/bin/python scripts/lock_node.py "$file"
done
