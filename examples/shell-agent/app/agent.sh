#!/bin/sh
# Counts words: {"text": "…"} → {"words": N, "first": "…"}. The whole agent protocol in sh and curl, without a session:
# a lease lives for 30 s after its last beat.
set -eu
# What a word is depends on what a letter is.
export LC_ALL=C.UTF-8
: "${AGENTCTL_GATEWAY:?}"
tmp=$(mktemp -d)
trap 'exit 0' TERM INT
trap 'rm -rf "$tmp"' EXIT

# In a file, so that the token is in no process list.
umask 077
printf 'Authorization: Bearer %s\n' "$(cat "${AGENTCTL_TOKEN_FILE:-/run/secrets/agentctl-token}")" > "$tmp/header"

# call PATH JSON: the answer on stdout; fails on every status that is an error.
call() {
  curl -sS --fail-with-body --max-time 30 -H "@$tmp/header" -H 'content-type: application/json' --data-binary "$2" "$AGENTCTL_GATEWAY$1"
}

# field NAME JSON: the text of a string field, still as JSON escapes it. (A quote inside of a JSON string is escaped, so the pattern meets only real keys.)
field() {
  printf '%s' "$2" | sed -nE 's/.*"'"$1"'":"(([^"\\]|\\.)*)".*/\1/p'
}

# JSON escapes → plain text on one line. The byte 1 stands in for an escaped backslash: JSON allows it nowhere as itself.
plain() {
  sed -E -e 's/\\\\/\x01/g' -e 's/\\[nrtfb]/ /g' -e 's/\\u[0-9a-fA-F]{4}/?/g' -e 's/\\(.)/\1/g' -e 's/\x01/\\/g'
}

# Plain text without control characters → inside of a JSON string.
quoted() {
  sed -E 's/[\\"]/\\&/g'
}

count() {
  text=$(field text "$1" | plain)
  words=$(printf '%s' "$text" | wc -w)
  first=$(printf '%s\n' "$text" | awk 'NF { print $1; exit }' | quoted)
  printf '{"words":%d,"first":"%s"}' "$words" "$first"
}

while :; do
  # In the background and waited for: a signal ends the wait at once.
  call /v1/lease '{"want":1,"wait_ms":10000}' > "$tmp/reply" &
  if ! wait $!; then
    sleep 1
    continue
  fi
  touch /tmp/.agentctl-ready
  reply=$(cat "$tmp/reply")
  # The first of that name: an input may have keys of its own, after it.
  lease=$(printf '%s' "$reply" | grep -o '"lease":"[^"]*"' | head -n 1 | cut -d '"' -f 4)
  [ -n "$lease" ] || continue

  # Work that may take longer than 30 s beats meanwhile; the answer's "cancel" would name the lease when it is to stop.
  (while sleep 10; do call /v1/heartbeat "{\"lease\":\"$lease\"}" > "$tmp/beat" || exit 0; done) &
  beating=$!
  if [ -n "$(field text "$reply")" ]; then
    done=/v1/complete
    body="{\"lease\":\"$lease\",\"result\":$(count "$reply")}"
  else
    done=/v1/fail
    body="{\"lease\":\"$lease\",\"error\":{\"code\":\"bad_input\",\"message\":\"expected {\\\"text\\\": \\\"some words\\\"}\",\"retryable\":false}}"
  fi
  kill "$beating" 2> /dev/null || :
  # Refused (409): the lease was lost, somebody else does the task.
  call "$done" "$body" > "$tmp/answer" || cat "$tmp/answer" >&2
done
