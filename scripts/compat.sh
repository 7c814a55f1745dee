#!/usr/bin/env bash
# Runs the core tests with other versions of transformers, each in an environment of its own below
# .compat/: that version and what it needs, over the packages of .venv. Arguments: versions, or none
# for all that are supported; "newest" is the newest on the index.
set -uo pipefail
cd "$(dirname "$0")/.."
easyedit_head=5.5.4  # what EasyEdit's GitHub HEAD pins
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(4.49.0 4.53.3 "$easyedit_head" newest)
tests=(tests/backbones tests/methods/dualedit tests/methods/visedit tests/methods/mscke
    tests/methods/mend/test_editor.py tests/methods/ft/test_editor.py tests/evaluation/test_evaluator.py)
base=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
failed=()
for version in "${versions[@]}"; do
    place=.compat/$version
    if [ ! -f "$place/.installed" ]; then
        rm -rf "$place"
        .venv/bin/python -m venv --without-pip "$place"
        wanted="transformers==$version"
        [ "$version" != newest ] || wanted=transformers
        .venv/bin/python -m pip --python "$place/bin/python" install -q --progress-bar off "$wanted" ||
            { failed+=("$version (not installed)"); continue; }
        # What is not in the new environment comes from .venv, the package itself included.
        own=$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        printf 'import site; site.addsitedir("%s")\n' "$base" > "$own/base.pth"
        touch "$place/.installed"
    fi
    "$place/bin/python" -c 'import torch, transformers; print("transformers", transformers.__version__, "torch", torch.__version__)'
    "$place/bin/python" -m pytest -q -p no:cacheprovider -n 2 "${tests[@]}" || failed+=("$version")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed with transformers: ${failed[*]}" >&2
    exit 1
fi
echo "all passed: ${versions[*]}"
