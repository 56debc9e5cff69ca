#!/usr/bin/env bash
# The quickstart in a folder of its own: applied, planned again, asked for a prediction. `make demo` calls it.
# Usage: demo.sh FOLDER, or demo.sh --down FOLDER to stop what it runs and remove the folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH="$here/.venv/bin:$PATH"
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

bold='' plain=''
if [[ -t 1 ]]; then bold=$'\033[1m' plain=$'\033[0m'; fi

show() { # says which command it runs, as one would type it, then runs it
  local word line=''
  for word in "$@"; do
    if [[ $word == *[!A-Za-z0-9_./=-]* ]]; then line+=" '$word'"; else line+=" $word"; fi
  done
  printf '\n%s$%s%s\n' "$bold" "$line" "$plain"
  "$@"
}

down() {
  if [[ -f $1/mlstack.yaml && -x $here/.venv/bin/mlstack ]]; then
    (cd "$1" && mlstack destroy --yes)
  fi
  rm -rf "$1"
}

make_project() { # in a temporary folder first, so that an interrupted copy is never taken for a project
  local making=$1.making
  rm -rf "$making"
  cp -R "$here/examples/quickstart" "$making"
  git -C "$making" init --quiet
  git -C "$making" symbolic-ref HEAD refs/heads/main
  git -C "$making" config user.name >/dev/null || git -C "$making" config user.name "mlstack demo"
  git -C "$making" config user.email >/dev/null || git -C "$making" config user.email "demo@example.com"
  git -C "$making" add --all
  git -C "$making" commit --quiet --message "The quickstart"
  mv "$making" "$1"
}

if [[ ${1:-} == --down ]]; then
  down "$2"
  exit
fi

demo=$1
[[ -f $demo/mlstack.yaml ]] || make_project "$demo"
cd "$demo"
show mlstack init
show mlstack apply --yes
git add --all
git diff --cached --quiet || git commit --quiet --message "Results"
show mlstack plan

patient='[[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]]'
show mlstack predict endpoints.progression --data "$patient"
url=$(mlstack show endpoints.progression --json | python -c 'import json, sys; print(json.load(sys.stdin)["recorded"]["attributes"]["url"])')

cat <<EOF

The same with curl:
  curl -s $url/v2/models/progression/infer -H 'Content-Type: application/json' \\
    -d '{"inputs": [{"name": "input", "datatype": "FP64", "shape": [1, 10], "data": $patient}]}'

Go on (the endpoint stays up when this terminal is closed):
  source .venv/bin/activate && cd $(basename "$demo")
  mlstack status
  mlstack run --set depth=2       # try smaller trees; nothing is recorded
  mlstack compare                 # is the error smaller?
  \$EDITOR mlstack.yaml            # depth: 2, then: mlstack plan, mlstack apply

Take it down:
  make demo-down
EOF
