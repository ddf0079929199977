#!/bin/sh
children() {
    sleep 1000 &
    setsid sleep 1000 &
    (setsid sh -c 'sleep 1000 &' &)
}
wait_for_ever() {
    echo waiting >&2
    sleep 1000 &
    wait
}
case $1 in
echo) exec cat ;;
show) tee /dev/stderr ;;
hang) wait_for_ever ;;
stubborn)
    trap '' TERM
    echo waiting >&2
    while :; do sleep 1; done
    ;;
family)
    children
    wait_for_ever
    ;;
parent) children ;;
die)
    sleep 1000 &
    echo dying >&2
    kill -9 $$
    ;;
large) head -c "$(cat)" /dev/zero | tr '\0' x ;;
flood) head -c "$(cat)" /dev/zero | tr '\0' x >&2 ;;
esac
