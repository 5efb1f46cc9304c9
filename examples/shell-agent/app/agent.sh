#!/bin/sh
# Counts words, by the whole agent protocol in sh and curl, without a session: a lease lives for 30 s after its last beat.
#   {"text": "…"}                 → {"words": N, "first": "…"}
#   {"text": "…", "seconds": N}     the same, slowly: with progress, and it can be cancelled
#   {"command": "…"}                of what the agent `shell` writes when it runs the command
set -eu
# What a word is depends on what a letter is.
export LC_ALL=C.UTF-8
: "${AGENTCTL_GATEWAY:?}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
stopping=''
work=''
trap 'stopping=1; [ -z "$work" ] || kill "$work" 2> /dev/null || :' TERM INT

# In a file, so that the token is in no process list.
umask 077
printf 'Authorization: Bearer %s\n' "$(cat "${AGENTCTL_TOKEN_FILE:-/run/secrets/agentctl-token}")" > "$tmp/header"

# once FILE PATH [JSON]: the answer into FILE, its status on stdout; 000: there was none.
once() {
  curl -sS --max-time 30 -o "$1" -w '%{http_code}' -H "@$tmp/header" -H 'content-type: application/json' \
    ${3:+--data-binary "$3"} "$AGENTCTL_GATEWAY$2" 2> /dev/null || :
}

# send FILE PATH [JSON]: until the answer counts. Fails when it is no, for good. A gateway that is away or busy is asked again.
send() {
  while :; do
    status=$(once "$@")
    case "$status" in
      200 | 201) return 0 ;;
      '' | 000* | 429 | 5*) sleep 0.5 ;;
      *) return 1 ;;
    esac
  done
}

# field NAME JSON: the text of a string field, still as JSON escapes it. (A quote inside of a JSON string is escaped, so the pattern meets only real keys.)
field() {
  printf '%s' "$2" | sed -nE 's/.*"'"$1"'":"(([^"\\]|\\.)*)".*/\1/p'
}
number() {
  printf '%s' "$2" | sed -nE 's/.*"'"$1"'":([0-9]+).*/\1/p'
}

# JSON escapes → plain text on one line. The byte 1 stands in for an escaped backslash: JSON allows it nowhere as itself.
plain() {
  sed -E -e 's/\\\\/\x01/g' -e 's/\\[nrtfb]/ /g' -e 's/\\u[0-9a-fA-F]{4}/?/g' -e 's/\\(.)/\1/g' -e 's/\x01/\\/g'
}

# Plain text without control characters → inside of a JSON string.
quoted() {
  sed -E 's/[\\"]/\\&/g'
}

fail() { # fail CODE MESSAGE [RETRYABLE]
  printf '"error":{"code":"%s","message":"%s","retryable":%s}' "$1" "$(printf '%s' "$2" | quoted)" "${3:-false}" > "$tmp/error"
  exit 1
}

# What `shell` writes when it runs the command. The key makes it the same child when this task is tried again.
delegated() {
  send "$tmp/child" /v1/delegate "{\"lease\":\"$lease\",\"key\":\"text\",\"agent\":\"shell\",\"input\":{\"command\":\"$1\"}}" ||
    fail not_delegated "$(cat "$tmp/child")"
  child=$(field task "$(cat "$tmp/child")")
  while send "$tmp/child" "/v1/tasks/$child?wait_ms=10000"; do
    case "$(field status "$(cat "$tmp/child")")" in
      completed) field stdout "$(cat "$tmp/child")"; return 0 ;;
      queued | running) ;;
      *) fail child_failed "the child $child did not complete" ;;
    esac
  done
  fail child_lost "$(cat "$tmp/child")"
}

# The work, in a process of its own: the result into a file, or the error.
count() {
  reply=$1
  text=$(field text "$reply")
  command=$(field command "$reply")
  [ -z "$command" ] || text=$(delegated "$command")
  [ -n "$text" ] || fail bad_input 'expected {"text": "some words"}'
  seconds=$(number seconds "$reply")
  if [ -n "$seconds" ]; then
    once "$tmp/progress" /v1/progress "{\"lease\":\"$lease\",\"message\":\"counting for $seconds s\",\"percent\":50}" > /dev/null
    sleep "$seconds" &
    sleeping=$!
    trap 'kill "$sleeping"; exit 1' TERM
    wait "$sleeping"
  fi
  words=$(printf '%s' "$text" | plain | wc -w)
  first=$(printf '%s\n' "$text" | plain | awk 'NF { print $1; exit }' | quoted)
  printf '"result":{"words":%d,"first":"%s"}' "$words" "$first" > "$tmp/result"
}

# Beside the work; ends it when the gateway says so, or does not know the lease any more.
beat() {
  while sleep 5; do
    case "$(once "$tmp/beat" /v1/heartbeat "{\"lease\":\"$lease\"}")" in
      200) grep -q '"cancel":\["' "$tmp/beat" || continue ;;
      409) ;;
      *) continue ;;
    esac
    printf '"error":{"code":"cancelled","message":"the task was cancelled","retryable":false}' > "$tmp/error"
    kill "$work"
    exit 0
  done
}

while [ -z "$stopping" ]; do
  # In the background and waited for: a signal ends the wait at once.
  once "$tmp/reply" /v1/lease '{"want":1,"wait_ms":10000}' > "$tmp/status" &
  work=$!
  wait "$work" || :
  work=''
  [ -z "$stopping" ] || break
  if [ "$(cat "$tmp/status")" != 200 ]; then
    sleep 0.5
    continue
  fi
  touch "${AGENTCTL_READY_FILE:-/tmp/.agentctl-ready}"
  reply=$(cat "$tmp/reply")
  # The first of that name: an input may have keys of its own, after it.
  lease=$(printf '%s' "$reply" | grep -o '"lease":"[^"]*"' | head -n 1 | cut -d '"' -f 4)
  [ -n "$lease" ] || continue

  rm -f "$tmp/result" "$tmp/error"
  count "$reply" &
  work=$!
  beat &
  beating=$!
  wait "$work" || :
  kill "$beating" 2> /dev/null || :
  work=''

  if [ -e "$tmp/result" ]; then
    send "$tmp/answer" /v1/complete "{\"lease\":\"$lease\",$(cat "$tmp/result")}" && continue
    # 409: the lease was lost, somebody else does the task. What is too large (413) must fail instead.
    [ "$status" != 409 ] || continue
    printf '"error":{"code":"refused","message":"the gateway did not take the result: HTTP %s","retryable":false}' "$status" > "$tmp/error"
  elif [ -n "$stopping" ]; then
    printf '"error":{"code":"agent_stopped","message":"the agent was stopped","retryable":true}' > "$tmp/error"
  elif [ ! -e "$tmp/error" ]; then
    printf '"error":{"code":"crashed","message":"the work ended without a result","retryable":true}' > "$tmp/error"
  fi
  send "$tmp/answer" /v1/fail "{\"lease\":\"$lease\",$(cat "$tmp/error")}" || cat "$tmp/answer" >&2
done
